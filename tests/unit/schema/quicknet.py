"""drand's chain quicknet, and one of its rounds: published by the League of Entropy."""

from __future__ import annotations

from transom.schema.drand import Chain

HASH = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"

INFO = {
    "public_key": "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2"
    "d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a",
    "period": 3,
    "genesis_time": 1692803367,
    "groupHash": "f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e",
    "schemeID": "bls-unchained-g1-rfc9380",
    "metadata": {"beaconID": "quicknet"},
}
"""As a relay tells it."""

QUICKNET = Chain(
    public_key=str(INFO["public_key"]),
    period=3,
    genesis_time=1692803367,
    group_hash=str(INFO["groupHash"]),
    beacon_id="quicknet",
)

ROUND = 657413

SIGNATURE = "b713718a38ae728dfd477991af2822e08d2f305e47718cef9f7848ce4050e7be41076862b98fad56e91a6b85b89cd97b"

WORD = "fc1873a13f3545aeade8401532ef5519920652eee6b0d2b19ca12643b87b3587"
