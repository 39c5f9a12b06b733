"""Activation datasets: batches, shards, going on after an interruption, and what is refused."""

from __future__ import annotations

import json

import httpx2
import numpy as np
import pytest
from client_standin import BASE
from safetensors.numpy import save

from transom import Client
from transom.client import Activations
from transom.errors import Conflict, InvalidRequest, TransomError

WIDTH, LAYERS = 4, 2
PROMPTS = [[number] * (1 + number % 3) for number in range(1, 21)]


class Traces:
    """A server whose activations are token ids; it takes at most `most` runs in a plan."""

    def __init__(self, most=256, dies_at=None, deployment="sha256:ab"):
        self.most, self.dies_at, self.deployment = most, dies_at, deployment
        self.sizes = []

    def __call__(self, request):
        plan = json.loads(request.content)
        runs = plan["runs"]
        if len(runs) > self.most:
            detail = {"message": "Less.", "type": "invalid_request_error", "param": "runs"}
            return httpx2.Response(400, json={"error": detail | {"code": "plan_too_large", "layer": "api"}})
        if len(self.sizes) == self.dies_at:
            raise httpx2.ConnectError("gone")
        self.sizes.append(len(runs))
        tensors = {f"{name}.x": self._values(run) for name, run in runs.items()}
        about = {f"axes.{name}": "layer,pos,unit" for name in tensors} | {"record": f"rec_{len(self.sizes)}"}
        headers = {"x-transom-deployment": self.deployment}
        return httpx2.Response(200, content=save(tensors, about), headers=headers)

    def _values(self, run):
        ids = np.array(run["input"]["token_ids"], np.float32)
        if run["read"]["x"].get("pos") == "last":
            ids = ids[-1:]
        layers = np.arange(LAYERS, dtype=np.float32)[:, None, None] / 10
        return np.tile(ids[None, :, None] + layers, (1, 1, WIDTH))


async def collect(kind, server, folder, prompts=PROMPTS, **options):
    transport = httpx2.MockTransport(server)
    client = kind(BASE, "", transport=transport)
    options = {"at": {"x": "resid_post.*"}, "progress": False} | options
    if isinstance(client, Client):
        return client.model("m").collect(prompts, folder, **options)
    return await (await client.model("m")).collect(prompts, folder, **options)


@pytest.mark.anyio
async def test_rows_are_positions_in_the_order_of_prompts(kind, tmp_path):
    found = await collect(kind, Traces(), tmp_path)
    rows = [(n, pos, token) for n, prompt in enumerate(PROMPTS) for pos, token in enumerate(prompt)]
    assert len(found) == len(rows)
    for column, name in enumerate(("prompt", "pos", "token")):
        np.testing.assert_array_equal(found.load(name), [row[column] for row in rows])
    stream = found.load("x")
    assert stream.shape == (len(rows), LAYERS, WIDTH)
    np.testing.assert_allclose(stream[:, 1, 0], [row[2] + 0.1 for row in rows], rtol=1e-6)
    assert found.index.axes == {"x": ["row", "layer", "unit"]}
    assert found.complete


@pytest.mark.anyio
async def test_plans_grow_until_they_are_refused_and_then_shrink(kind, tmp_path):
    server = Traces(most=9)
    found = await collect(kind, server, tmp_path)
    assert server.sizes == [8, 6, 6]
    assert [shard.prompts for shard in found.index.shards] == [(0, 8), (8, 14), (14, 20)]
    assert [shard.record for shard in found.index.shards] == ["rec_1", "rec_2", "rec_3"]


@pytest.mark.anyio
async def test_what_was_interrupted_goes_on_where_it_was(kind, tmp_path):
    with pytest.raises(TransomError):
        await collect(kind, Traces(most=8, dies_at=1), tmp_path)
    half = Activations(tmp_path)
    assert (half.complete, half.index.done) == (False, 8)
    # What was being written when it died is written anew.
    (tmp_path / "shard-00001.safetensors.part").write_bytes(b"half")
    server = Traces(most=8)
    found = await collect(kind, server, tmp_path)
    assert server.sizes == [8, 4]
    np.testing.assert_array_equal(np.unique(found.load("prompt")), range(20))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.json", "shard-00000.safetensors", "shard-00001.safetensors", "shard-00002.safetensors",
    ]  # fmt: skip


@pytest.mark.anyio
async def test_what_is_complete_is_not_asked_for_again(kind, tmp_path):
    await collect(kind, Traces(), tmp_path)
    server = Traces()
    assert (await collect(kind, server, tmp_path)).complete
    assert server.sizes == []


@pytest.mark.parametrize("other", [{"prompts": PROMPTS[:-1]}, {"pos": "last"}, {"at": {"x": "resid_pre.*"}}])
@pytest.mark.anyio
async def test_a_folder_of_something_else_is_left_alone(kind, tmp_path, other):
    await collect(kind, Traces(), tmp_path)
    with pytest.raises(Conflict, match="choose another folder"):
        await collect(kind, Traces(), tmp_path, **other)


@pytest.mark.anyio
async def test_activations_of_two_deployments_are_not_mixed(kind, tmp_path):
    with pytest.raises(TransomError):
        await collect(kind, Traces(most=8, dies_at=1), tmp_path)
    with pytest.raises(Conflict, match="another deployment"):
        await collect(kind, Traces(deployment="sha256:cd"), tmp_path)
    assert Activations(tmp_path).index.done == 8


@pytest.mark.anyio
async def test_a_prompt_that_is_too_large_alone_is_the_servers_refusal(kind, tmp_path):
    with pytest.raises(InvalidRequest) as caught:
        await collect(kind, Traces(most=0), tmp_path)
    assert caught.value.reason == "plan_too_large"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"prompts": []}, "prompts"),
        ({"at": "attn_probs.3"}, "at"),
        ({"at": {"token": "z.3"}}, "at"),
        ({"at": "resid_pots.3"}, "at"),
    ],
)
@pytest.mark.anyio
async def test_what_makes_no_dataset_is_refused_before_anything_is_sent(kind, tmp_path, wrong, param):
    with pytest.raises(InvalidRequest) as caught:
        await collect(kind, Traces(most=0), tmp_path, **wrong)
    assert caught.value.param == param


@pytest.mark.anyio
async def test_torch_reads_the_rows_as_they_are_asked_for(kind, tmp_path):
    import torch

    found = await collect(kind, Traces(most=8), tmp_path)
    rows = found.torch("x")
    assert isinstance(rows, torch.utils.data.Dataset)
    assert len(rows) == len(found)
    (batch,) = torch.utils.data.DataLoader(rows, batch_size=len(rows))
    np.testing.assert_array_equal(batch.numpy(), found.load("x"))
    np.testing.assert_array_equal(rows[-1].numpy(), found.load("x")[-1])
    with pytest.raises(IndexError):
        rows[len(rows)]
    with pytest.raises(KeyError, match="no y; there are x, prompt, pos, token"):
        found.torch("y")


def test_the_client_does_not_load_torch_or_altair():
    import subprocess
    import sys

    program = "import sys, transom.client; print({'torch', 'altair'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_folder_without_activations_says_so(tmp_path):
    with pytest.raises(InvalidRequest, match="holds no activations"):
        Activations(tmp_path)
