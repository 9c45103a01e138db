"""A small reader of ``.wandb`` files: what a run really left on the disk.

The file is a log in blocks of 32 KiB (the format of LevelDB's write-ahead log) behind a header of
seven bytes. Each record is cut into chunks: CRC-32 of type and data, length, type, data.
"""

import json
import struct
import zlib
from dataclasses import dataclass, field

from wandb.proto import wandb_internal_pb2

BLOCK = 32 * 1024
HEADER = struct.Struct("<4sHB")
CHUNK = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_chunks(data):
    """Yield (type, payload) of every chunk; a wrong check sum is an error."""
    identity, magic, version = HEADER.unpack_from(data)
    if (identity, magic, version) != (b":W&B", 0xBEE1, 0):
        raise ValueError(f"no .wandb file: {data[:7]!r}")
    at = HEADER.size
    while at < len(data):
        left = BLOCK - at % BLOCK
        if left < CHUNK.size:
            at += left  # padding: no chunk header fits
            continue
        crc, length, kind = CHUNK.unpack_from(data, at)
        payload = data[at + CHUNK.size : at + CHUNK.size + length]
        if len(payload) < length:
            raise ValueError(f"the file ends within a chunk, at byte {at}")
        if zlib.crc32(bytes([kind]) + payload) != crc:
            raise ValueError(f"wrong check sum at byte {at}")
        yield kind, payload
        at += CHUNK.size + length


def read_payloads(data):
    """Yield every record, its chunks put together."""
    parts = None
    for kind, payload in read_chunks(data):
        if (kind in (FULL, FIRST)) != (parts is None):
            raise ValueError(f"a chunk of type {kind} in the wrong place")
        parts = [*(parts or []), payload]
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = None
    if parts is not None:
        raise ValueError("the last record is not whole")


@dataclass
class Recorded:
    """A run as its file has it.

    ``history`` holds one (step, numbers) for each record, in the file's order; ``metrics`` the
    way that each defined metric is summed up, ``axes`` what it is drawn over.
    """

    run: object = None
    config: dict = field(default_factory=dict)
    history: list = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    axes: dict = field(default_factory=dict)
    logs: str = ""
    artifacts: list = field(default_factory=list)
    exit_code: int | None = None
    sizes: list = field(default_factory=list)


def read(path):
    """Read one ``.wandb`` file."""
    found = Recorded()
    for payload in read_payloads(path.read_bytes()):
        found.sizes.append(len(payload))
        record = wandb_internal_pb2.Record.FromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            _update(found.config, record.run.config.update)
        elif kind == "config":
            _update(found.config, record.config.update)
        elif kind == "history":
            numbers = _update({}, record.history.item)
            found.history.append((record.history.step.num, numbers))
        elif kind == "summary":
            _update(found.summary, record.summary.update)
        elif kind == "metric":
            options = record.metric.summary
            found.metrics[record.metric.name] = [f.name for f, on in options.ListFields() if on]
            found.axes[record.metric.name] = record.metric.step_metric
        elif kind == "output_logger":
            found.logs += record.output_logger.line
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def read_run(folder):
    """Read the only run below a folder."""
    (path,) = folder.glob("wandb/*run-*/*.wandb")
    return read(path)


def _update(target, items):
    for item in items:
        path = list(item.nested_key) or [item.key]
        inner = target
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = json.loads(item.value_json)
    return target
