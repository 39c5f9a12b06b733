"""The file of the providers: what is taken, and how what is wrong is named."""

import pytest

from transom.access.sign_in.providers import load, parse
from transom.errors import ConfigurationError

OIDC = {"name": "ORCID", "issuer": "https://orcid.org", "client_id": "APP-1", "client_secret": "hush-hush"}
OAUTH2 = {
    "name": "GitHub",
    "kind": "oauth2",
    "issuer": "https://github.com",
    "client_id": "x",
    "client_secret": "hush-hush",
    "authorization_endpoint": "https://github.com/login/oauth/authorize",
    "token_endpoint": "https://github.com/login/oauth/access_token",
    "userinfo_endpoint": "https://api.github.com/user",
}


def test_both_kinds():
    found = parse({"orcid": OIDC, "github": OAUTH2}, "file")
    assert (found["orcid"].scope, found["orcid"].client_auth) == ("openid", "client_secret_basic")
    assert found["github"].scope == ""
    assert found["github"].secret == "hush-hush"


def test_addresses_are_asked_for_only_where_they_are_trusted():
    assert parse({"uni": OIDC | {"trust_email": True}}, "file")["uni"].scope == "openid email"


def test_a_public_client_has_no_secret():
    public = {key: value for key, value in OIDC.items() if key != "client_secret"}
    assert parse({"orcid": public}, "file")["orcid"].client_auth == "none"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"issuer": "http://orcid.org"}, "https"),
        ({"issuer": ""}, "orcid.issuer"),
        ({"isuer": "x"}, "orcid.isuer"),
        ({"client_id": ""}, "orcid.client_id"),
        ({"kind": "saml"}, "orcid.kind"),
        ({"scopes": ["email"]}, "scope openid"),
        ({"token_endpoint": "https://x.org"}, "by itself"),
        ({"auth_method": "none"}, "contradict"),
        ({"client_secret": None}, None),
    ],
)
def test_what_is_wrong_is_named_without_the_secret(change, named):
    tables = {"orcid": OIDC | change}
    if named is None:
        assert parse(tables, "file")
        return
    with pytest.raises(ConfigurationError, match=named) as refused:
        parse(tables, "file")
    assert "hush" not in refused.value.message
    assert refused.value.message.startswith("file: orcid")


@pytest.mark.parametrize("field", ["authorization_endpoint", "token_endpoint", "userinfo_endpoint"])
def test_oauth2_needs_its_endpoints(field):
    with pytest.raises(ConfigurationError, match="three endpoints"):
        parse({"hub": {key: value for key, value in OAUTH2.items() if key != field}}, "file")
    with pytest.raises(ConfigurationError, match="https"):
        parse({"hub": OAUTH2 | {field: "http://github.com/x"}}, "file")


def test_oauth2_alone_is_not_trusted_with_addresses():
    with pytest.raises(ConfigurationError, match="trusted with addresses"):
        parse({"hub": OAUTH2 | {"trust_email": True}}, "file")


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a/b", "x" * 33])
def test_a_table_is_named_as_a_path_can_be(name):
    with pytest.raises(ConfigurationError, match="no name"):
        parse({name: OIDC}, "file")


def test_an_issuer_is_one_provider():
    with pytest.raises(ConfigurationError, match="one issuer"):
        parse({"a": OIDC, "b": OIDC}, "file")


class TestFile:
    @pytest.fixture
    def file(self, tmp_path):
        return tmp_path / "providers.toml"

    def write(self, file, text, mode=0o600):
        file.write_text(text)
        file.chmod(mode)

    def test_no_file_is_no_provider(self, file):
        assert load(file) == {}

    def test_a_file_is_read(self, file):
        self.write(file, '[orcid]\nname = "ORCID"\nissuer = "https://orcid.org"\nclient_id = "x"\n')
        assert load(file)["orcid"].name == "ORCID"

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
    def test_one_that_others_read_is_refused(self, file, mode):
        self.write(file, "", mode)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            load(file)

    @pytest.mark.parametrize("text", ["[", "a = ", "orcid = 5"])
    def test_one_that_is_none_is_refused(self, file, text):
        self.write(file, text)
        with pytest.raises(ConfigurationError, match=r"providers\.toml"):
            load(file)
