"""What a gateway costs around an upstream that answers at once.

    benchmarks/peers/litellm.sh install
    python benchmarks/gateway.py --model-root .transom/models/smollm2-135m-instruct --rounds 5

Starts Transom with everything on, a bare FastAPI pass-through and LiteLLM's proxy, each on core 0, and the
upstream on core 1 beside the load generator; measures them in turn, prints medians, and keeps the rows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.gateways.measure import Comparison, Gateway, Sizes
from benchmarks.load.command import run
from benchmarks.load.machine import ROOT
from benchmarks.load.processes import StartedServer
from benchmarks.load.rows import RESULTS, append
from benchmarks.load.server import wait_until_up
from benchmarks.load.table import lines
from benchmarks.load.wire import Address

UPSTREAM, OURS, BARE, LITELLM = 8901, 8902, 8903, 8904
"""Ports."""

UPSTREAM_URL = f"http://127.0.0.1:{UPSTREAM}/v1"
MASTER_KEY = "sk-benchmark"
GATEWAY_CORE, LOAD_CORE = 0, 1


def main(arguments: Sequence[str]) -> int:
    """Measure, print and keep; 1 where a gateway did not answer."""
    options = _parse(arguments)
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        return run(_measure(options))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/gateway.py", description="Gateways around an upstream that answers at once."
    )
    add = parser.add_argument
    add("--model-root", type=Path, required=True, help="model whose chat template and tokenizer ours uses")
    add("--without", action="append", default=[], choices=["litellm", "pass-through"], help="repeatable")
    add("--rounds", type=int, default=5, help="of each scenario (default 5)")
    add("--scale", type=float, default=1.0, help="multiplies the numbers of requests (default 1)")
    add("--no-results", action="store_true", help="print only; append nothing")
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args(arguments)


async def _measure(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        gateways = [await _ours(options.model_root, stack)]
        upstream = await _upstream(stack)
        if "pass-through" not in options.without:
            gateways.append(await _pass_through(stack))
        if "litellm" not in options.without:
            gateways.append(await _litellm(stack))
        sizes = Sizes()
        for name in ("latency", "throughput", "streams"):
            setattr(sizes, name, max(32, int(getattr(sizes, name) * options.scale)))
        comparison = Comparison(
            gateways=gateways,
            upstream=upstream,
            rounds=options.rounds,
            sizes=sizes,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        rows = await comparison.run()
    for line in lines(rows):
        print(line)
    if not options.no_results:
        append(rows, options.results)
    return 0


async def _ours(model_root: Path, stack: ExitStack) -> Gateway:
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transom-gateway-")))
    module = f"-m benchmarks.gateways.ours --port {OURS} --home {shlex.quote(str(home))}"
    command = f"{sys.executable} {module} --model-root {shlex.quote(str(model_root))}"
    # From its own folder, so that the packages of the checkout are found as this process found them.
    started = _start("ours", f"env PYTHONPATH={_python_path()} {command}", GATEWAY_CORE, stack)
    while not (home / "key").exists():
        started.check()
        await asyncio.sleep(0.1)
    key = (home / "key").read_text(encoding="utf-8")
    return await _up("ours", OURS, started, key=key)


async def _upstream(stack: ExitStack) -> Gateway:
    command = f"{sys.executable} -m benchmarks.gateways.upstream --port {UPSTREAM}"
    started = _start("upstream", f"env PYTHONPATH={_python_path()} {command}", LOAD_CORE, stack)
    return await _up("upstream", UPSTREAM, started)


async def _pass_through(stack: ExitStack) -> Gateway:
    script = ROOT / "benchmarks" / "gateways" / "passthrough.py"
    command = f"{_peer_python()} {script} --port {BARE} --upstream {UPSTREAM_URL}"
    return await _up("pass-through", BARE, _start("pass-through", command, GATEWAY_CORE, stack))


async def _litellm(stack: ExitStack) -> Gateway:
    script = ROOT / "benchmarks" / "peers" / "litellm.sh"
    variables = f"env PORT={LITELLM} MASTER_KEY={MASTER_KEY}"
    started = _start("litellm", f"{variables} {script} serve {UPSTREAM_URL}", GATEWAY_CORE, stack)
    asked = await asyncio.create_subprocess_exec(str(script), "version", stdout=asyncio.subprocess.PIPE)
    said = (await asked.communicate())[0].decode().strip()
    return await _up("litellm", LITELLM, started, key=MASTER_KEY, version=said)


def _start(label: str, command: str, core: int, stack: ExitStack) -> StartedServer:
    log = Path(tempfile.mkstemp(prefix=f"{label}-", suffix=".log")[1])
    print(f"starting {label}; it writes to {log}", file=sys.stderr, flush=True)
    started = StartedServer(f"taskset -c {core} {command}", log)
    stack.callback(started.stop)
    return started


async def _up(
    label: str, port: int, started: StartedServer, *, key: str | None = None, version: str = ""
) -> Gateway:
    address = Address.parse(f"http://127.0.0.1:{port}/v1")
    waiting = asyncio.ensure_future(wait_until_up(address, key, 300))
    while not waiting.done():
        started.check()
        await asyncio.wait([waiting], timeout=0.2)
    waiting.result()
    return Gateway(label=label, address=address, pid=started.pid, key=key, version=version or _version(label))


def _version(label: str) -> str:
    return version("transom") if label == "ours" else ""


def _python_path() -> str:
    return shlex.quote(os.pathsep.join(map(str, (ROOT / "src", ROOT))))


def _peer_python() -> Path:
    folder = Path(os.environ.get("LITELLM_VENV", ROOT / ".venv-litellm"))
    return folder / "bin" / "python"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
