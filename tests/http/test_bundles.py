"""Bundles of the real application: made by the command, verified without it; and tampered with."""

from __future__ import annotations

import asyncio
import json
import shutil
import stat
import zipfile

import httpx2
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.http.door import settings
from tests.http.live import Live
from transom.app import mailer_of, open_database, open_office
from transom.cli import output
from transom.cli.main import app
from transom.client.bundle.checking import verify_bundle
from transom.client.bundle.container import open_bundle
from transom.client.bundle.layout import KINDS, METADATA, kind_of
from transom.client.bundle.metadata import Run, describe
from transom.client.bundle.writing import look_at, write_zip
from transom.client.offline import Trust
from transom.client.spelling import read_record
from transom.errors import InvalidRequest
from transom.schema.envelopes import PublicKeys

PLAN = {"runs": {"a": {"input": "The light", "read": {"x": {"at": "resid_post.*"}}}}, "return": ["a.x"]}


def transom(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture(autouse=True)
def _pipes(monkeypatch):
    """Neither stream is a terminal."""
    monkeypatch.setattr(
        output, "out", Console(soft_wrap=True, markup=False, highlight=False, force_terminal=False)
    )
    monkeypatch.setattr(
        output,
        "err",
        Console(stderr=True, soft_wrap=True, markup=False, highlight=False, force_terminal=False),
    )


def keyed(home):
    """A key of the operator's, of a server that is not started yet."""
    own = settings(home)
    database = open_database(own)
    try:
        return asyncio.run(open_office(own, database, mailer_of(own)).keys.create()).text
    finally:
        database.close()


@pytest.fixture(scope="module")
def owner(tmp_path_factory, tokenizer):
    """A folder with a bundle, and the keys of the server that it came from, which is off."""
    folder, home = tmp_path_factory.mktemp("owner"), tmp_path_factory.mktemp("home")
    key = keyed(home)
    with Live(home, tokenizer) as live, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSOM_BASE_URL", live.url)
        patch.setenv("TRANSOM_API_KEY", key)
        headers = {"authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=f"{live.url}/v1", timeout=30, headers=headers) as client:
            asked = {
                "model": "fake",
                "prompt": "The light",
                "max_tokens": 2,
                "logprobs": 1,
                "temperature": 1.0,
            }
            ids = [client.post("/completions", json=asked).json()["id"] for _ in range(2)]
        (folder / "plan.json").write_text(json.dumps(PLAN | {"model": "fake"}))
        traced = transom("trace", folder / "plan.json", "--out", folder / "read.safetensors")
        assert traced.exit_code == 0, traced.stderr
        ids.append(next(word for word in traced.stderr.split() if word.startswith("rec_")))
        (folder / "score.py").write_text("print('well')\n")
        (folder / "score.lock").write_text("numpy==2.4.1\n")
        (folder / "policy.txt").write_text("quorum none\n")
        (folder / "keys.json").write_text(transom("log", "keys").stdout)
        (folder / "ids.json").write_text(json.dumps(ids))
        # The newest may not be under a checkpoint yet: it is waited for.
        receipt = transom("receipt", ids[-1])
        assert receipt.exit_code == 0, receipt.stderr
        (folder / "newest.tlog-proof").write_text(receipt.stdout)
        never = transom("receipt", "rec_never", "--wait", "1")
        assert (never.exit_code, "rec_never" in never.stderr) == (1, True)
        export(folder, "out.zip", *ids)
    return folder


def export(folder, name, *ids):
    files = {
        "--result": "read.safetensors",
        "--scorer": "score.py",
        "--lock": "score.lock",
        "--policy": "policy.txt",
    }
    options = [each for option, file in files.items() for each in (option, folder / file)]
    done = transom(
        "export", *ids, "--crate", folder / name, *options, "--license", "https://example.org/terms"
    )
    assert done.exit_code == 0, done.stderr
    return done


@pytest.fixture
def unzipped(owner, tmp_path):
    with zipfile.ZipFile(owner / "out.zip") as archive:
        archive.extractall(tmp_path / "bundle")
    return tmp_path / "bundle"


def faults(bundle, keys):
    """What `transom verify` says is wrong, and why it does not even look."""
    trust = Trust(PublicKeys.model_validate_json((keys / "keys.json").read_bytes()))
    try:
        with open_bundle(bundle) as opened:
            return [fault for finding in verify_bundle(opened, trust) for fault in finding.faults]
    except InvalidRequest as error:
        return [error.message]


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_bundle_has_a_file_of_each_kind_and_verifies_zipped_and_unzipped(owner, unzipped):
    assert {kind_of(name)[0] for name in names(unzipped)} == set(KINDS)
    for bundle in (owner / "out.zip", unzipped):
        done = transom("verify", bundle, "--keys", owner / "keys.json")
        assert done.exit_code == 0, done.stderr
        for shown in (
            *("agrees with itself", "signed by sha256:", "question and answer", "whose manifest is here"),
            *(
                "carried out the plan",
                "tensors that are here",
                "names the keys that are trusted",
                "not applied",
            ),
        ):
            assert shown in done.stdout


def test_the_same_files_give_the_same_bytes(owner, unzipped, tmp_path):
    files = {name: unzipped / name for name in names(unzipped)}
    write_zip(tmp_path / "again.zip", files, {name: look_at(path) for name, path in files.items()})
    assert (tmp_path / "again.zip").read_bytes() == (owner / "out.zip").read_bytes()


def test_keys_of_a_bundle_are_believed_only_where_somebody_says_so(owner):
    done = transom("verify", owner / "out.zip")
    assert done.exit_code == 1
    assert "who signed it is not shown" in done.stderr
    assert "question and answer" in done.stdout
    assert transom("verify", owner / "out.zip", "--keys-in-bundle").exit_code == 0
    both = transom("verify", owner / "out.zip", "--keys-in-bundle", "--keys", owner / "keys.json")
    assert both.exit_code == 2
    loose = transom("verify", owner / "plan.json")
    assert loose.exit_code == 2
    assert "Give --keys" in loose.stderr


def test_other_keys_than_the_verifiers_are_found(owner, tmp_path):
    keys = json.loads((owner / "keys.json").read_text())
    keys["log"] = keys["log"].replace("transom.invalid/", "transom.invalid/x")
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    found = faults(owner / "out.zip", tmp_path)
    assert "names other keys than those that are trusted" in found[-1]
    assert len([fault for fault in found if "no receipt of these files" in fault]) == 3
    keys = json.loads((owner / "keys.json").read_text()) | {"records": []}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    found = faults(owner / "out.zip", tmp_path)
    assert found.count("no signature by a key that is trusted") == 3


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_byte_that_is_changed_in_any_kind_of_file_is_found(owner, unzipped, kind):
    for name in [name for name in names(unzipped) if kind_of(name)[0] == kind]:
        path = unzipped / name
        whole = path.read_bytes()
        for place in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert faults(unzipped, owner), (name, place)
        path.write_bytes(whole)
    assert faults(unzipped, owner) == []


def described_anew(folder):
    """As somebody would who means to deceive: the description is made of the changed files."""
    files = {name: look_at(folder / name) for name in names(folder) if name != METADATA}
    views = [read_record(path.read_text()) for path in (folder / "records").iterdir()]
    (folder / METADATA).write_bytes(
        describe(files, [Run.of(view) for view in views], "https://example.org/terms")
    )


@pytest.mark.parametrize("kind", ["record", "receipt", "deployment", "plan", "result", "keys"])
def test_a_change_is_found_though_the_description_was_made_anew(owner, unzipped, kind):
    name = next(name for name in names(unzipped) if kind_of(name)[0] == kind)
    path = unzipped / name
    whole = path.read_bytes()
    other = {
        "record": lambda: whole.replace(b'"text":"', b'"text":"x', 1),
        "receipt": lambda: whole.replace(b"index ", b"index 1", 1),
        "deployment": lambda: whole.replace(b'"max_model_len":', b'"max_model_len":1', 1),
        "plan": lambda: whole.replace(b"The light", b"The night"),
        "result": lambda: whole[:-1] + bytes([whole[-1] ^ 1]),
        "keys": lambda: whole.replace(b'"log":"', b'"log":"x', 1),
    }[kind]()
    assert other != whole
    path.write_bytes(other)
    described_anew(unzipped)
    (found, *_) = faults(unzipped, owner)
    assert METADATA not in found


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"policy", "scorer"}))
def test_a_file_that_is_gone_is_missed(owner, unzipped, kind):
    name = next(name for name in names(unzipped) if kind_of(name)[0] == kind)
    (unzipped / name).unlink()
    assert faults(unzipped, owner)


def test_a_result_or_receipt_of_another_record_is_found(owner, unzipped):
    one, two = sorted((unzipped / "receipts").iterdir())[:2]
    content = one.read_bytes(), two.read_bytes()
    one.write_bytes(content[1])
    two.write_bytes(content[0])
    described_anew(unzipped)
    found = faults(unzipped, owner)
    assert len([fault for fault in found if "no receipt" in fault]) == 2


# What nobody should open.


def zipped(path, *members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content, *mode in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return path


RECORD = "records/rec_" + "0" * 26 + ".json"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../keys.json",
            "/keys.json",
            "records/../keys.json",
            "C:keys.json",
            "records\\x.json",
            "keys.json\0.exe",
        ),
        *(
            "scorer/../keys.json",
            "scorer/.hidden",
            "scorer/a/b",
            "other.txt",
            "KEYS.json",
            "records/rec_1.json",
        ),
    ],
)
def test_a_name_that_no_file_of_a_bundle_has_is_refused(owner, tmp_path, name):
    info = zipfile.ZipInfo("x")
    info.filename = name
    (fault,) = faults(zipped(tmp_path / "a.zip", (info, b"x")), owner)
    assert "is no name of a file in a bundle" in fault


def test_links_are_refused(owner, tmp_path, unzipped):
    (fault,) = faults(zipped(tmp_path / "a.zip", ("keys.json", b"/etc/passwd", stat.S_IFLNK | 0o777)), owner)
    assert "is a link" in fault
    (unzipped / "keys.json").unlink()
    (unzipped / "keys.json").symlink_to(owner / "keys.json")
    (fault,) = faults(unzipped, owner)
    assert "is a link" in fault


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(owner, tmp_path):
    (fault,) = faults(zipped(tmp_path / "a.zip", ("keys.json", b"{}"), ("keys.json", b"[]")), owner)
    assert "twice" in fault


def test_what_is_far_larger_unpacked_is_refused_unopened(owner, tmp_path):
    bomb = zipped(tmp_path / "a.zip", (RECORD, bytes(70 << 20)), method=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 20
    (fault,) = faults(bomb, owner)
    assert "far more than its size" in fault


def test_a_file_that_is_too_large_for_memory_is_refused(owner, tmp_path, unzipped):
    with (unzipped / "keys.json").open("r+b") as file:
        file.truncate((1 << 28) + 1)
    (fault,) = faults(unzipped, owner)
    assert "are the most" in fault


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(owner, tmp_path, method):
    (fault,) = faults(zipped(tmp_path / "a.zip", ("keys.json", b"{}"), method=method), owner)
    assert "packed in a way" in fault


@pytest.mark.parametrize("content", [b"PK", b"PK\x03\x04" + bytes(100), b"PK\x05\x06" + bytes(18)])
def test_what_is_no_bundle_is_refused(owner, tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    assert faults(tmp_path / "a.zip", owner)


def test_a_zip_file_that_was_packed_again_verifies(owner, tmp_path, unzipped):
    shutil.make_archive(str(tmp_path / "again"), "zip", unzipped)
    assert faults(tmp_path / "again.zip", owner) == []


# What cannot be exported.


@pytest.fixture
def live(tmp_path, tokenizer, monkeypatch):
    with Live(tmp_path / "home", tokenizer) as live:
        monkeypatch.setenv("TRANSOM_BASE_URL", live.url)
        monkeypatch.setenv("TRANSOM_API_KEY", "")
        yield live


def refused(*arguments):
    done = transom("export", *arguments)
    assert done.exit_code != 0
    return done.stderr


def test_what_cannot_be_exported_is_said_by_name(live, owner, tmp_path):
    out = tmp_path / "out.zip"
    reply = httpx2.post(f"{live.url}/v1/completions", json={"model": "fake", "prompt": "x", "max_tokens": 1})
    record = reply.json()["id"]
    assert "no record" in refused("rec_" + "0" * 26, "--crate", out)
    assert "named twice" in refused(record, record, "--crate", out)
    assert "none of the records" in refused(record, "--crate", out, "--result", owner / "read.safetensors")
    assert "no result of a plan" in refused(record, "--crate", out, "--result", owner / "plan.json")
    assert "is no policy" in refused(record, "--crate", out, "--policy", owner / "plan.json")
    assert "--scorer" in refused(record, "--crate", out, "--lock", owner / "score.lock")
    assert "as a URL" in refused(record, "--crate", out, "--license", "mine")
    (tmp_path / "my score.py").write_text("")
    assert "no name of a file" in refused(record, "--crate", out, "--scorer", tmp_path / "my score.py")
    assert "cannot be written" in refused(record, "--crate", tmp_path / "nowhere" / "out.zip")
    assert not out.exists()
    assert transom("export", record, "--crate", out).exit_code == 0
    first = out.read_bytes()
    assert "there already" in refused(record, "--crate", out)
    assert out.read_bytes() == first
    assert transom("export", record, "--crate", out, "--force").exit_code == 0
