"""Notes: what is read, what is refused, and whose signature counts."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from transom.errors import NotVerified
from transom.tlog.notes import COSIGNATURE, ED25519, Note, Signature, Signer, VerifierKey, sign_note

TEXT = "a line\n\nanother, after an empty one\n"


def signer(name="log.example/a", kind=ED25519, seed=1, clock=lambda: 1700000000.9):
    return Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32), kind, clock)


def test_a_note_is_read_as_it_was_written():
    note = sign_note(TEXT, [signer(), signer("w.example/1", COSIGNATURE, 2)])
    again = Note.parse(str(note))
    assert again == note
    assert again.text == TEXT
    assert Note.parse(str(note).encode()) == note


def test_the_example_of_the_specification_is_read_with_its_key():
    # The key of the example is not told; what is, is the form.
    text = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGz"
        "Ggku9nTo+zyWE+xeMcTOAYQ8=\n".replace("Ggku", "Gku")
    )
    (signature,) = Note.parse(text).signatures
    assert (signature.name, signature.key_id) == ("example.com/behind-the-sofa", 0x033DE0AE)
    assert len(signature.content) == 64


@pytest.mark.parametrize("kind", [ED25519, COSIGNATURE])
def test_a_signature_is_of_one_text_one_name_and_one_kind(kind):
    own = signer(kind=kind)
    note = sign_note(TEXT, [own])
    assert note.verified([own.verifier]) == [(own.verifier, note.signatures[0])]
    other_kind = signer(kind=ED25519 + COSIGNATURE - kind)
    for stranger in (signer("log.example/b", kind), signer(kind=kind, seed=3), other_kind):
        assert note.verified([stranger.verifier]) == []
    with pytest.raises(NotVerified, match="does not fit the text"):
        Note("another text\n", note.signatures).verified([own.verifier])


def test_a_cosignature_is_of_its_time():
    witness = signer(kind=COSIGNATURE)
    signature = witness.sign(TEXT)
    assert signature.time == 1700000000
    later = Signature(
        signature.name, signature.key_id, (1700000001).to_bytes(8, "big") + signature.content[8:]
    )
    with pytest.raises(NotVerified):
        witness.verifier.verify(TEXT, later)


def test_of_one_key_the_newer_signature_counts():
    witness, log = signer("w.example/1", COSIGNATURE, 2), signer()
    note = sign_note(TEXT, [log, witness])
    newer = signer("w.example/1", COSIGNATURE, 2, lambda: 1800000000.0).sign(TEXT)
    assert note.signed(newer).signatures == (log.sign(TEXT), newer)


def test_a_key_is_read_as_it_was_spelled():
    key = signer().verifier
    assert VerifierKey.parse(str(key)) == key


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "name",
        "name+00000000",
        "na me+{id}+{key}",
        "+{id}+{key}",
        "log.example/a+{id}+",
        "log.example/a+{id}+!{key}",
        "log.example/a+00000000+{key}",
        "log.example/b+{id}+{key}",
        "log.example/a+{id}+{key}=",
        "log.example/a+{id}+Av0=",
    ],
)
def test_what_is_no_key_is_refused(spelled):
    _, key_id, key = str(signer().verifier).split("+", 2)
    with pytest.raises(NotVerified):
        VerifierKey.parse(spelled.format(id=key_id, key=key))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"text\n",
        b"text\n\n",
        b"\n\n\xe2\x80\x94 n AAAAAAAA\n",
        b"text\n\n\xe2\x80\x94 n AAAAAAAA",
        b"text\n\n- n AAAAAAAA\n",
        b"text\n\n\xe2\x80\x94 n  AAAAAAAA\n",
        b"text\n\n\xe2\x80\x94 n+m AAAAAAAA\n",
        b"text\n\n\xe2\x80\x94 n AAAA\n",
        b"text\n\n\xe2\x80\x94 n AAAAAAB=\n",
        b"te\txt\n\n\xe2\x80\x94 n AAAAAAAA\n",
        b"te\rxt\n\n\xe2\x80\x94 n AAAAAAAA\n",
        b"te\xffxt\n\n\xe2\x80\x94 n AAAAAAAA\n",
        b"text\n\n" + 65 * b"\xe2\x80\x94 n AAAAAAAA\n",
        b"x" * (1 << 20) + b"\n\n\xe2\x80\x94 n AAAAAAAA\n",
    ],
)
def test_what_is_no_note_is_refused(content):
    with pytest.raises(NotVerified):
        Note.parse(content)


def test_only_a_text_that_a_note_can_hold_is_signed():
    for text in ("no end", "tab\t\n"):
        with pytest.raises(ValueError, match="newline"):
            signer().sign(text)
    with pytest.raises(ValueError, match="name"):
        signer("two words")
