"""Pickles are converted in a sealed process: tensors come out whole, and nothing that would act comes out."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch

from sfumato import weights
from sfumato.checkpoint import unpickle
from sfumato.errors import CheckpointError, OutputError

W = torch.arange(12.0).reshape(3, 4)


class Calls:
    """Pickles as a call of `function`, which unpickling carries out."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call

    def __call__(self):
        """So that it can stand for a function: pickle wants one that can be called."""


def zipped(held, **options):
    memory = io.BytesIO()
    torch.save(held, memory, **options)
    return memory.getvalue()


def repacked(archive, compression=zipfile.ZIP_STORED, **entries):
    """A torch archive with some of its entries, named without their folder, replaced or added."""
    memory = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(memory, "w", compression) as new:
        for name in old.namelist():
            content = entries.pop(name.partition("/")[2].replace("/", "_").replace(".", "_"), old.read(name))
            new.writestr(name, content)
        for name, content in entries.items():
            new.writestr(f"archive/{name}", content)
    return memory.getvalue()


@pytest.fixture
def planted(tmp_path):
    """Where a payload leaves its mark if it runs."""
    return tmp_path / "planted"


def payloads(planted):
    """Every sort of pickle that acts when it is loaded, by name."""
    command = f"touch {planted}"
    calls = {
        "os.system": Calls(os.system, command),
        "subprocess": Calls(subprocess.call, ["touch", str(planted)]),
        "eval": Calls(eval, f"open({str(planted)!r}, 'w')"),
        "exec": Calls(exec, f"open({str(planted)!r}, 'w')"),
        "open": Calls(open, str(planted), "w"),
        "getattr": Calls(Calls(getattr, Calls(__import__, "os"), "system"), command),
        "inner loads": Calls(pickle.loads, pickle.dumps(Calls(os.system, command))),
        "torch.load": Calls(
            partial(torch.load, weights_only=False),
            Calls(io.BytesIO, zipped({"x": Calls(os.system, command)})),
        ),
    }
    made = {f"{name}, zipped": zipped({"w": W, "x": call}) for name, call in calls.items()}
    for protocol in (0, 2, 4, 5):
        for name, call in calls.items():
            made[f"{name}, protocol {protocol}"] = pickle.dumps({"x": call}, protocol)
    made["legacy"] = zipped({"x": calls["os.system"]}, _use_new_zipfile_serialization=False)
    stand_in = b"cnumpy\ndtype\n(Vf8\ntR0cposix\nsystem\n(V" + command.encode() + b"\ntR."
    made["after a stand-in"] = repacked(zipped({"w": W}), data_pkl=stand_in)
    made["attribute of an allowed class"] = repacked(
        zipped({"w": W}), data_pkl=b"ctorch._utils\n_rebuild_tensor.__globals__\n."
    )
    return made


@pytest.fixture
def convert(tmp_path):
    def run(content, **options):
        (tmp_path / "in.ckpt").write_bytes(content)
        return unpickle.convert(tmp_path / "in.ckpt", tmp_path / "out.safetensors", **options)

    return run


def read(content):
    """The tensors that are written, and what is not, as the sealed process finds them."""
    return unpickle._state(unpickle._loaded(io.BytesIO(content), len(content)), 1 << 20)


def refused(convert, tmp_path, content):
    with pytest.raises(CheckpointError) as caught:
        convert(content)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.ckpt"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_training_checkpoint_becomes_its_tensors_alone(convert, tmp_path):
    state = OrderedDict(w=W, turned=W.T, part=W[1:, 1:3], tied=W, half=W.half(), step=torch.tensor(3))
    done = convert(zipped({"state_dict": {**state, "note": "text"}, "epoch": 3, "optimizer_states": [{}]}))
    found = weights.read(tmp_path / "out.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert (done.tensors, done.bytes) == (6, (tmp_path / "out.safetensors").stat().st_size)
    assert done.dropped == ("epoch (int)", "optimizer_states (list of 1)", "note (str)")
    assert "trusted: torch's weights-only unpickler" in "\n".join(done.lines())
    if sys.platform == "linux":
        assert done.guards == ("limits", "seccomp")


def test_an_old_file_of_an_embedding_becomes_emb_params():
    held = {"string_to_token": {"*": 265}, "string_to_param": {"*": W}, "name": "style", "step": 500}
    state, _ = read(zipped(held, _use_new_zipfile_serialization=False))
    assert torch.equal(state["emb_params"], W)


def test_the_two_tables_of_an_ip_adapter_become_one():
    tables = {"image_proj": {"proj.weight": W}, "ip_adapter": {"1.to_k_ip.weight": 2 * W}, "step": 500}
    held, dropped = read(zipped(tables))
    assert dropped == ["step (int)"]
    assert held.keys() == {"image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"}
    assert torch.equal(held["ip_adapter.1.to_k_ip.weight"], 2 * W)


def test_the_first_embeddings_keep_their_vectors_in_a_module():
    table = torch.nn.ParameterDict({"*": torch.nn.Parameter(W)})
    state, _ = read(zipped({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": table}))
    assert torch.equal(state["emb_params"], W)


@pytest.mark.parametrize("name", ["os.system, zipped", "eval, protocol 4"])
def test_a_pickle_that_would_act_is_refused_and_nothing_happens(convert, tmp_path, planted, name):
    assert "was not converted" in refused(convert, tmp_path, payloads(planted)[name])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_the_unpickler_runs_none_of_the_payloads(planted):
    for name, content in payloads(planted).items():
        with pytest.raises(pickle.UnpicklingError):
            unpickle._loaded(io.BytesIO(content), len(content))
        assert not planted.exists(), name


def test_the_payloads_act_where_a_pickle_is_trusted(planted):
    for name, content in payloads(planted).items():
        if name != "attribute of an allowed class":
            with suppress(RuntimeError):  # torch expects more behind a bare pickle
                torch.load(io.BytesIO(content), weights_only=False)
            assert planted.exists(), name
            planted.unlink()


def test_a_global_is_named_without_advice_to_trust_it(planted):
    content = payloads(planted)["os.system, zipped"]
    with pytest.raises(pickle.UnpicklingError) as caught:
        unpickle._loaded(io.BytesIO(content), len(content))
    named = f"it asks for {os.system.__module__}.system, which is not part of any tensor and was not run"
    assert unpickle._reason(caught.value) == named


BOMB = repacked(zipped({"w": W}), zipfile.ZIP_DEFLATED, more=bytes(1 << 20))
CLAIMED = zipped({"w": W.as_strided((1 << 20, 1 << 20), (0, 0))})
DAMAGED = {
    "its archive is compressed": BOMB,
    "claim more numbers than the file holds": CLAIMED,
    "BadZipFile": zipped({"w": W})[:-200],
    "it holds no tensors": zipped({"note": "text", "quantised": torch.ones(2, dtype=torch.complex64)}),
    "it holds list, not a table": zipped([W]),
    "names between double underscores": zipped({"__class__": W}),
    "asks for torch.nn.modules.linear.Linear": zipped({"net": torch.nn.Linear(2, 2)}),
    "textual inversion of 2 words": zipped({"string_to_param": {"a": W, "b": W}}),
}


@pytest.mark.parametrize("words", DAMAGED)
def test_a_pickle_that_is_damaged_or_holds_no_table_is_refused(words):
    content = DAMAGED[words]
    with pytest.raises((CheckpointError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile)) as caught:
        weights.write_to(io.BytesIO(), read(content)[0])
    assert words in unpickle._reason(caught.value)


def test_a_storage_that_claims_more_than_memory_is_refused_in_bounded_memory(convert, tmp_path):
    content = zipped({"w": W}, _use_new_zipfile_serialization=False)
    count, huge = struct.pack("<BB", 0x4B, 12), struct.pack("<Bi", 0x4A, 0x7FFFFFFF)
    assert count in content
    told = refused(convert, tmp_path, content.replace(count, huge))
    assert "was not converted" in told


def test_what_training_left_behind_is_put_aside(monkeypatch):
    where = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": where})
    for depth in range(1, 4):
        monkeypatch.setitem(sys.modules, ".".join(where.split(".")[:depth]), ModuleType(where))
    sys.modules[where].ModelCheckpoint = callback
    held = {"state_dict": {"w": W}, "callbacks": {callback: {"best": np.float64(2)}}, "made": callback()}
    state, dropped = read(zipped(held))
    assert torch.equal(state["w"], W)
    assert dropped == ["callbacks (dict of 1)", "made (_Nothing)"]


def test_what_a_stand_in_is_given_is_forgotten():
    nothing = unpickle._Nothing("a", 1)
    nothing.__setstate__({"b": 2})
    with pytest.raises(AttributeError):
        nothing.b = 2


def test_a_file_is_replaced_only_on_demand_and_only_by_a_good_one(convert, tmp_path):
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(OutputError, match="overwrite=True replaces it"):
        convert(zipped({"w": W}))
    with pytest.raises(CheckpointError):
        convert(b"\x80\x02N.", overwrite=True)
    assert target.read_bytes() == b"mine"
    convert(zipped({"w": W}), overwrite=True)
    assert torch.equal(weights.read(target)["w"], W)


def test_what_needs_no_conversion_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_args, **_options: pytest.fail("a process was started"))
    weights.write(tmp_path / "a.safetensors", {"w": W})
    for source, target, error, words in (
        ("a.safetensors", "b.safetensors", CheckpointError, "is safetensors already"),
        ("none.ckpt", "b.safetensors", CheckpointError, "is missing"),
        (".", "b.safetensors", CheckpointError, "cannot read"),
        ("a.safetensors", "b.ckpt", OutputError, "is named .safetensors"),
    ):
        with pytest.raises(error, match=words):
            unpickle.convert(tmp_path / source, tmp_path / target)


def test_a_child_that_lies_is_not_believed(convert, tmp_path, monkeypatch):
    monkeypatch.setattr(
        unpickle, "_START", "import sys; print('not safetensors'); print('{}', file=sys.stderr)"
    )
    refused(convert, tmp_path, zipped({"w": W}))
    monkeypatch.setattr(
        unpickle, "_START", "import sys; print('\\x1b[31m' * 999, file=sys.stderr); sys.exit(1)"
    )
    assert "failed with exit status 1" in refused(convert, tmp_path, zipped({"w": W}))
    monkeypatch.setattr(unpickle, "_START", "import os; os.abort()")
    assert "ended, by its limits or by a fault" in refused(convert, tmp_path, zipped({"w": W}))


def test_the_child_is_told_no_secret(convert, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    told = "import json, os, sys; print(json.dumps({'error': ' '.join(os.environ)}), file=sys.stderr)"
    monkeypatch.setattr(unpickle, "_START", told)
    names = refused(convert, tmp_path, zipped({"w": W})).partition(": ")[2].split()
    assert "OMP_NUM_THREADS" in names
    assert set(names) <= {
        *unpickle._KEPT_ENVIRONMENT,
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "LC_CTYPE",
    }


SEALED = """
import ctypes, json, os, pickle, socket, subprocess, sys
from sfumato.checkpoint import confine
if sys.argv[1] == "hook":
    confine._MACHINES.clear()
libc = ctypes.CDLL(None)
open_file, planted = open(sys.argv[2], "rb"), sys.argv[3].encode()
held = confine.seal()
class Payload:
    def __reduce__(self):
        return os.system, (b"touch " + planted,)
acts = {
    "open": lambda: open(planted, "w"),
    "read": lambda: open("/etc/hostname"),
    "socket": lambda: socket.socket().connect(("127.0.0.1", 9)),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "fork": os.fork,
    "system": lambda: os.system(b"touch " + planted),
    "popen": lambda: subprocess.run(["touch", planted]),
    "exec": lambda: os.execv("/bin/sh", ["sh", "-c", b"touch " + planted]),
    "unlink": lambda: os.unlink(sys.argv[2]),
    "kill": lambda: os.kill(os.getppid(), 0),
    "unpickling": lambda: pickle.loads(pickle.dumps(Payload())),
}
native = {
    "system": lambda: libc.system(b"touch " + planted),
    "creat": lambda: libc.creat(planted, 0o600),
    "socket": lambda: libc.socket(2, 1, 0),
}
done = []
for name, act in acts.items():
    try:
        if act() in (None, 0):
            done.append(name)
    except PermissionError:
        pass
if held == "seccomp":
    done += ["native " + name for name, act in native.items() if act() not in (-1, 127 << 8)]
os.write(1, json.dumps([held, done, open_file.read().decode(), sum(range(9))]).encode())
os._exit(0)
"""


@pytest.mark.parametrize("way", ["kernel", "hook"])
def test_a_sealed_process_computes_reads_what_is_open_and_does_nothing_else(tmp_path, planted, way):
    (tmp_path / "open").write_text("text")
    words = [sys.executable, "-c", SEALED, way, str(tmp_path / "open"), str(planted)]
    out = subprocess.run(words, capture_output=True, check=True).stdout
    held = "seccomp" if way == "kernel" and sys.platform == "linux" else "audit hook"
    assert json.loads(out) == [held, [], "text", 36]
    assert (tmp_path / "open").exists()
    assert not planted.exists()


def test_an_audit_hook_lets_pickles_be_read(tmp_path):
    """Where there is no filter, the same process must work under the hook."""
    (tmp_path / "in.pt").write_bytes(zipped({"state_dict": {"w": W, "turned": W.T}}))
    start = "from sfumato.checkpoint import confine, unpickle; confine._MACHINES.clear(); unpickle.child()"
    with open(tmp_path / "in.pt", "rb") as pickled, open(tmp_path / "out.safetensors", "wb") as file:
        told = subprocess.run(
            [sys.executable, "-c", start], stdin=pickled, stdout=file, stderr=subprocess.PIPE, check=True
        ).stderr
    assert json.loads(told.splitlines()[-1])["guards"][-1] == "audit hook"
    assert torch.equal(safetensors.torch.load_file(tmp_path / "out.safetensors")["turned"], W.T)


NO_PICKLES = {"text": b"hello", "nothing": b"", "noise": bytes(range(256)) * 40}


@pytest.mark.parametrize("kind", NO_PICKLES)
def test_what_is_no_pickle_is_told_so_without_advice_to_trust_it(kind):
    with pytest.raises((pickle.UnpicklingError, EOFError, LookupError)) as caught:
        read(NO_PICKLES[kind])
    assert unpickle._reason(caught.value) == "it is no pickle of tensors, or a damaged one"


def test_a_file_that_is_no_pickle_is_refused_and_leaves_nothing(convert, tmp_path):
    assert "no pickle of tensors, or a damaged one" in refused(convert, tmp_path, NO_PICKLES["text"])
