"""Checkpoint files mutated at random: the only outcomes are a model or CheckpointError, within the file's own memory.

VIT_FUZZ sets how many mutated safetensors files are read (default 3,000); 100,000 take a few minutes.
"""

import io
import json
import math
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save as save_bytes

from vit_common import CheckpointError, ViTConfig, init_params, load_checkpoint
from vit_common.read_npz import read_npz
from vit_common.read_safetensors import MAX_HEADER, read_safetensors

COUNT = int(os.environ.get("VIT_FUZZ", "3000"))
CONFIG = ViTConfig(image_size=4, patch_size=2, in_channels=1, embed_dim=4, depth=1, num_heads=2, mlp_ratio=1.0,
                   num_classes=2)  # fmt: skip
PARAMS = init_params(CONFIG, seed=0)
NUMBERS = (0, 1, -1, 7, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, 1e308, None, True, "8",
           [], {})  # fmt: skip


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One of: flipped bytes, another header length, a forged header entry, text noise in the header, a cut, a graft."""
    out = bytearray(data)
    kind = rng.integers(7)
    length = int.from_bytes(data[:8], "little")
    if kind == 0:
        for _ in range(rng.integers(1, 9)):
            out[rng.integers(len(out))] = rng.integers(256)
    elif kind == 1:
        out[:8] = int(rng.integers(0, 2**63, dtype=np.uint64) >> np.uint64(rng.integers(63))).to_bytes(8, "little")
    elif kind in (2, 3):
        header = json.loads(data[8 : 8 + length])
        for _ in range(rng.integers(1, 4)):
            forge(header, rng)
        text = json.dumps(header).encode()
        out[: 8 + length] = len(text).to_bytes(8, "little") + text
    elif kind == 4:
        for _ in range(rng.integers(1, 5)):
            out[8 + rng.integers(length)] = rng.choice(list(b'{}[]",:0123456789eE-+.\\u\x00\xff'))
    elif kind == 5:
        out = out[: rng.integers(len(out))]
    else:
        first, second = sorted(rng.integers(len(out), size=2))
        out[first:first] = out[first:second] * int(rng.integers(1, 4))
    return bytes(out)


def forge(header: dict, rng: np.random.Generator) -> None:
    name = str(rng.choice([key for key in header if key != "__metadata__"] or ["x"]))
    entry = header.get(name)
    if not isinstance(entry, dict):
        header[name] = NUMBERS[rng.integers(len(NUMBERS))]
        return
    kind, value = rng.integers(8), NUMBERS[rng.integers(len(NUMBERS))]
    if kind == 0:
        entry["shape"] = [value] * int(rng.integers(0, 70))
    elif kind == 1 and isinstance(entry.get("shape"), list) and entry["shape"]:
        entry["shape"][rng.integers(len(entry["shape"]))] = value
    elif kind == 2:
        entry["data_offsets"] = [value, NUMBERS[rng.integers(len(NUMBERS))]]
    elif kind == 3 and isinstance(entry.get("data_offsets"), list):
        near = int(rng.integers(-9, 9))
        entry["data_offsets"] = [offset + near if type(offset) is int else offset for offset in entry["data_offsets"]]
    elif kind == 4:
        entry["dtype"] = ["F64", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "f32", value][rng.integers(8)]
    elif kind == 5:
        entry.pop(str(rng.choice(list(entry)))) if entry else None
    elif kind == 6:
        header[str(rng.choice(["extra", "../x", "\x00", "x" * 300]))] = header.pop(name)
    else:
        header["__metadata__"] = value


def attempt(read, path) -> bool:
    """Whether the file was read. Any other error than CheckpointError ends the test."""
    try:
        read(path)
    except CheckpointError:
        return False
    return True


class Counting:
    """NumPy, but it adds up how many bytes its arrays are asked for."""

    def __init__(self):
        self.asked = 0

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, shape, dtype):
        self.asked += math.prod(shape) * np.dtype(dtype).itemsize  # before it is tried
        return np.empty(shape, dtype)


def test_mutated_safetensors(tmp_path, monkeypatch):
    """A typed error or the tensors; and all arrays together are never asked for more bytes than the file has."""
    counting = Counting()
    monkeypatch.setattr("vit_common.read_safetensors.np", counting)
    data = save_bytes(PARAMS, {"format": "pt", "vit_config": json.dumps(CONFIG.to_dict())})
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    assert attempt(load_checkpoint, path)
    rng, read = np.random.default_rng(0), 0
    for k in range(COUNT):
        mutated, counting.asked = mutate(data, rng), 0
        path.write_bytes(mutated)
        read += attempt(load_checkpoint if k % 8 == 0 else read_safetensors, path)
        assert counting.asked <= (2 if b"BF16" in mutated else 1) * len(mutated)
    assert 0 < read < 0.6 * COUNT  # both sides of the fence are reached


def peak_of(read, path) -> int:
    """Bytes allocated at once while the file is read, or refused."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    attempt(read, path)
    return tracemalloc.get_traced_memory()[1] - before


def test_memory_is_bounded_by_the_file(tmp_path):
    """The tensors cost their bytes, a header as Python objects ten times its own, the open file its buffers. No claim
    costs more."""
    data = save_bytes(PARAMS)
    path, rng = tmp_path / "w.safetensors", np.random.default_rng(1)
    path.write_bytes(data)
    attempt(read_safetensors, path)  # imports and caches
    tracemalloc.start()
    try:
        for _ in range(max(COUNT // 10, 100)):
            mutated = mutate(data, rng)
            path.write_bytes(mutated)
            header = min(int.from_bytes(mutated[:8], "little"), len(mutated))
            assert peak_of(read_safetensors, path) < len(mutated) + 10 * header + (32 << 10)
    finally:
        tracemalloc.stop()


EMPTY = '"dtype":"U8","data_offsets":[0,0]'
# The costliest headers that a kibibyte can be filled with, repeated up to n bytes.
COSTLY = {
    "lists": lambda n: '{"a":{"shape":[' + "[]," * (n // 3) + "[]]}}",
    "tables": lambda n: "{" + '"a":{},' * (n // 7) + '"b":{}}',
    "deep lists": lambda n: '{"a":{"shape":' + "[" * (n // 2) + "]" * (n // 2) + "}}",
    "deep tables": lambda n: '{"a":' * (n // 6) + "1" + "}" * (n // 6),
    "empty tensors": lambda n: "{" + ",".join(f'"{i}":{{"shape":[0],{EMPTY}}}' for i in range(n // 60)) + "}",
    "many axes": lambda n: "{" + ",".join(f'"{i}":{{"shape":[{"0," * 31}0],{EMPTY}}}' for i in range(n // 130)) + "}",
    "long list of numbers": lambda n: '{"a":{"shape":[' + "1," * (n // 2) + f"0],{EMPTY}}}}}",
    "metadata": lambda n: '{"__metadata__":{' + ",".join(f'"{i}":"\U0001f600"' for i in range(n // 16)) + "}}",
    "lists in metadata": lambda n: '{"__metadata__":{"a":[' + "[]," * (n // 3) + "1]}}",
    "a long name": lambda n: '{"' + "x" * n + f'\U0001f600":{{"shape":[0],{EMPTY}}}}}',
    "escapes": lambda n: '{"' + "\\n" * (n // 2) + f'":{{"shape":[0],{EMPTY}}}}}',
    "no end of a name": lambda n: '{"' + "\\" * n,
    "quotes": lambda n: '{"a":{' + '"' * n,
    "spaces": lambda n: "{" + " " * n,
}


@pytest.mark.parametrize("kind", COSTLY)
def test_no_header_costs_more_than_26_times_its_length(tmp_path, kind):
    """So none of the legal length costs more than half the file and 32 MiB."""
    path, text = tmp_path / "w.safetensors", COSTLY[kind](MAX_HEADER // 16).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    tracemalloc.start()
    try:
        peak = peak_of(read_safetensors, path)
    finally:
        tracemalloc.stop()
    assert peak < 26 * len(text) + (32 << 10)


def test_a_header_out_of_proportion_is_refused_unread(tmp_path):
    path = tmp_path / "w.safetensors"
    text = b"{" + b" " * (2 * MAX_HEADER) + b"}"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"a header of 2097154 bytes for 1048576 bytes of data; refused"):
            read_safetensors(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_long_configuration_is_refused(tmp_path):
    """It is JSON within the header's JSON, and parsed whole."""
    (tmp_path / "w.safetensors").write_bytes(save_bytes(PARAMS, {"vit_config": "[" + "[]," * 30_000 + "1]"}))
    with pytest.raises(CheckpointError, match="the embedded configuration is longer than 65536 bytes; refused"):
        load_checkpoint(tmp_path / "w.safetensors")


def test_a_wide_dtype_costs_no_more_than_it_becomes(tmp_path):
    """Bfloat16 is widened in pieces: twice its bytes, not five times."""
    bits = np.random.default_rng(0).integers(0, 2**16, 3_000_001, np.uint16)
    flags = np.random.default_rng(1).integers(0, 3, 3_000_001, np.uint8)
    entries = {"a": {"dtype": "BF16", "shape": [3_000_001], "data_offsets": [0, 6_000_002]},
               "b": {"dtype": "BOOL", "shape": [3_000_001], "data_offsets": [6_000_002, 9_000_003]}}  # fmt: skip
    text, path = json.dumps(entries).encode(), tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bits.tobytes() + flags.tobytes())
    tracemalloc.start()
    try:
        tensors = read_safetensors(path)[0]
        assert tracemalloc.get_traced_memory()[1] < 12_000_004 + 3_000_001 + (3 << 20)
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(tensors["a"].view(np.uint32), bits.astype(np.uint32) << 16)
    np.testing.assert_array_equal(tensors["b"], flags != 0)
    assert tensors["b"].dtype == np.bool_


@pytest.mark.parametrize("text", [
    '{"a" :\n{"shape":[2], "dtype":"F32" ,"data_offsets":[0,8]}\t}   ',
    '{"a":{"shape":[2],"dtype":"F32","data_offsets":[0,8]}}',
    '{"__metadata__":{"x":"{\\"y\\": [1, {}]}"},"a":{"shape":[2],"dtype":"F32","data_offsets":[0,8]}}',
    '{"\\u0061":{"shape":[2],"dtype":"F32","data_offsets":[0,8]}}',
])  # fmt: skip
def test_whatever_json_may_look_like(tmp_path, text):
    (tmp_path / "w").write_bytes(len(text).to_bytes(8, "little") + text.encode() + np.float32([1, 2]).tobytes())
    tensors, metadata = read_safetensors(tmp_path / "w")
    np.testing.assert_array_equal(tensors["a"], [1, 2])
    assert metadata == ({"x": '{"y": [1, {}]}'} if "__meta" in text else {})


@pytest.mark.parametrize(("text", "message"), [
    ('{"a":{"shape":[0],"dtype":"U8","data_offsets":[0,0]},}', "at byte 53 no tensor is described"),
    ('{"a":{"shape":[0],"dtype":"U8","data_offsets":[0,0]}} x', "goes on after its end, at byte 53"),
    ('{"a":{"shape":[0],"dtype":"U8","data_offsets":[0,0]},"a":{"shape":[0],"dtype":"U8","data_offsets":[0,0]}}',
     "the name 'a' occurs twice"),
    ('{"a":{"shape":[0],"shape":[0],"dtype":"U8","data_offsets":[0,0]}}', "a name occurs twice"),
    ('{"a":{"shape":[0],"dtype":"U8","data_offsets":[0,0],"more":"' + "x" * 5000 + '"}}', "described by 5057 bytes"),
    ('{"__metadata__":{"x":1}}', "not a table of strings"), ('["a"]', "no table of tensors"),
])  # fmt: skip
def test_what_is_no_header(tmp_path, text, message):
    (tmp_path / "w").write_bytes(len(text).to_bytes(8, "little") + text.encode())
    with pytest.raises(CheckpointError, match=message):
        read_safetensors(tmp_path / "w")


@pytest.mark.parametrize("shape", [[2**40], [2**31, 2**31], [0, 2**62], [2**62, 0, 2**62], [1] * 64])
def test_claims_beyond_the_file(tmp_path, shape):
    claim = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape, dtype=object))]}
    text = json.dumps({"a": claim})
    (tmp_path / "w").write_bytes(len(text).to_bytes(8, "little") + text.encode())
    with pytest.raises(CheckpointError):
        read_safetensors(tmp_path / "w")


@pytest.mark.parametrize(
    ("first", "second", "bytes_", "message"),
    [
        ([0, 8], [12, 20], 20, "starts at byte 12, expected 8"),  # a gap
        ([0, 8], [4, 12], 12, "starts at byte 4, expected 8"),  # an overlap
        ([0, 8], [0, 8], 8, "starts at byte 0, expected 8"),  # two names for the same bytes
        ([0, 8], [8, 16], 17, "truncated or padded"),
        ([0, 8], [8, 16], 15, "truncated or padded"),
        ([0, 8], [8, 20], 20, "does not fill bytes 8 to 20"),
        ([0, 8], [8, 12], 12, "does not fill bytes 8 to 12"),
    ],
)
def test_ranges_must_tile_the_file(tmp_path, first, second, bytes_, message):
    entries = {"a": first, "b": second}
    text = json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": at} for name, at in entries.items()})
    (tmp_path / "w").write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(bytes_))
    with pytest.raises(CheckpointError, match=message):
        read_safetensors(tmp_path / "w")


def test_mutated_npz(tmp_path):
    rng, path = np.random.default_rng(2), tmp_path / "w.npz"
    originals = []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **PARAMS)
        originals.append(buffer.getvalue())
    for k in range(max(COUNT // 10, 100)):
        out = bytearray(originals[k % 2])
        for _ in range(rng.integers(1, 9)):
            out[rng.integers(len(out))] = rng.integers(256)
        if k % 5 == 0:
            out = out[: rng.integers(len(out))]
        path.write_bytes(bytes(out))
        attempt(read_npz, path)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(20_000_000, np.uint8))
        archive.writestr("a.npy", buffer.getvalue())
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="times its"):
            read_npz(tmp_path / "w.npz")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
