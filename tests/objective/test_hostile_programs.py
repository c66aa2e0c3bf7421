"""Programs of strangers: refused with one error, in bounded memory, with nothing executed, imported or opened."""

from __future__ import annotations

import copy
import json
import pickle
import random
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exported_runs import with_facts
from places import SAMPLES
from plain_run_files import Outcome

from trajcheck.errors import BadInputError, ObjectiveError
from trajcheck.objective.loading import load_objective
from trajcheck.objective.program.stored import checksum

Facts = dict[str, Any]
Stream = random.Random

COUNT = 500
EVIL = [
    "__import__('os').system('touch mark')", "os.system", "../../mark", "/etc/passwd", "mark\x00", "\ud800", "%s%n", "",
    "a" * 10_000, "[__import__('os').system('touch mark'), 3][1]", "builtins.eval", "__class__", "{0.__class__}",
    "\x1b]0;x\x07",
]  # fmt: skip
FOREIGN = [
    "from_file.default", "_print.default", "set_.source_Tensor", "resize_.default", "as_strided.default",
    "_pin_memory.default", "record_stream.default", "requires_grad_.default", "rename.default", "__class__.x",
    "add.__init__", "add", "add.Tensor.x", "add.out", "__dict__.x", "sparse_coo_tensor.indices_size",
]  # fmt: skip


def node(name: str, op: str, *args: Any, **kwargs: Any) -> Facts:
    return {"name": name, "op": f"aten.{op}", "args": list(args), **({"kwargs": kwargs} if kwargs else {})}


def at(name: str) -> dict[str, str]:
    return {"node": name}


def before_the_loss(facts: Facts, *nodes: Facts) -> None:
    """Nodes before the last one, which takes what the last of them gives."""
    facts["nodes"][-1:-1] = nodes
    facts["nodes"].append(node("taken", "mean.default", at(nodes[-1]["name"]), dtype="float32"))
    facts["nodes"].append(node("result", "add.Tensor", facts["output"], at("taken")))
    facts["output"] = at("result")


def some_node(facts: Facts, stream: Stream) -> Facts:
    return stream.choice([each for each in facts["nodes"] if each.get("args")])


def operators(facts: Facts, stream: Stream) -> None:
    name = stream.choice([*(f"aten.{each}" for each in FOREIGN), *(f"python.{each}" for each in EVIL), *EVIL, "output"])
    some_node(facts, stream)["op"] = name


def effects(facts: Facts, stream: Stream) -> None:
    """Attack 3 of the findings, and its kin: an operator with effects, called as torch would take it."""
    path = str(stream.choice([*EVIL, "mark"]))
    before_the_loss(
        facts, node("evil", stream.choice(["from_file.default", "_print.default", "ones.names"]), path, True, 16),
        node("written", "fill_.Scalar", at("evil"), 7),
    )  # fmt: skip


def arity(facts: Facts, stream: Stream) -> None:
    chosen = some_node(facts, stream)
    match stream.randrange(4):
        case 0:
            chosen["args"] = chosen["args"][:-2] or []
        case 1:
            chosen["args"] += [0] * stream.choice([9, 100])
        case 2:
            chosen["kwargs"] = {stream.choice([*EVIL, "out", "self_"]): 0}
        case 3:
            chosen["args"] = stream.choice([None, {}, "args", 3, {"node": "input"}])


def cycles(facts: Facts, stream: Stream) -> None:
    chosen = some_node(facts, stream)
    later = stream.choice([chosen["name"], facts["nodes"][-1]["name"], "none", *EVIL])
    chosen["args"][0] = at(later)


def shapes(facts: Facts, stream: Stream) -> None:
    """Each would take a gigabyte at least, and most of them more than there is."""
    n = 2 ** stream.randrange(28, 46)
    many = [node(f"twice_{i}", "cat.default", [at(f"twice_{i - 1}" if i else "input")] * 2) for i in range(40)]
    flat = node("flat", "flatten.using_ints", at("input"))
    column = node("column", "unsqueeze.default", at("flat"), 1)
    wide = node("wide", "expand.default", at("column"), [2048, n])
    before_the_loss(
        facts,
        *stream.choice(
            [
                [node("made", stream.choice(["ones", "zeros", "randn", "rand"]) + ".default", [n])],
                [node("made", "full.default", [n // 1024, 1024], 1.0, device="here")],
                [node("made", "arange.default", n)],
                [node("made", "eye.default", n)],
                [node("made", "new_zeros.default", at("input"), [n])],
                [node("made", "linspace.default", 0, 1, n)],
                [node("made", "randperm.default", n)],
                [node("made", "pad.default", at("input"), [n, n])],
                [node("made", "repeat.default", at("input"), [n, 1])],
                [node("made", "repeat_interleave.self_int", at("input"), n)],
                [node("made", "one_hot.default", at("input_2"), n)],
                [node("made", "triu_indices.default", n, n)],
                [flat, column, wide, node("made", "clone.default", at("wide"))],
                [flat, column, wide, node("made", "mul.Tensor", at("wide"), 2)],
                [flat, column, wide, node("made", "reshape.default", at("wide"), [-1])],
                [flat, column, wide, node("made", "sum.default", at("wide"))],
                [flat, *(node(f"o{i}", "outer.default", at("flat" if not i else f"f{i - 1}"), at("flat")) if k else
                         node(f"f{i}", "flatten.using_ints", at(f"o{i}")) for i in range(3) for k in (1, 0))],
                [flat, column, node("pairs", "sub.Tensor", at("flat"), at("column")),
                 node("more", "unsqueeze.default", at("pairs"), 2), node("made", "mul.Tensor", at("more"), at("flat"))],
                many,
            ]
        ),
    )  # fmt: skip


def texts(facts: Facts, stream: Stream) -> None:
    """Attack 1 of the findings: text where a number, a size, a dtype or one of a few words belongs."""
    evil = stream.choice(EVIL)
    match stream.randrange(6):
        case 0:
            some_node(facts, stream)["args"][-1] = stream.choice([evil, {"expr_str": evil}, {"float": evil}, [evil]])
        case 1:
            before_the_loss(facts, node("act", "gelu.default", at("linear"), approximate=evil))
        case 2:
            before_the_loss(facts, node("act", "einsum.default", evil, [at("linear"), at("linear")]))
        case 3:
            before_the_loss(facts, node("act", "to.dtype", at("linear"), evil))
        case 4:
            before_the_loss(facts, node("act", "zeros.default", [evil], device=evil))
        case 5:
            facts["nodes"].append({"name": "sized", "op": "python.add", "args": [evil, 1]})


def names(facts: Facts, stream: Stream) -> None:
    evil = stream.choice([*EVIL, "../mark", "a/b", "A"])
    match stream.randrange(6):
        case 0:
            stream.choice(facts["nodes"])["name"] = evil
        case 1:
            facts["parameters"][0]["name"] = evil
        case 2:
            facts["nodes"][0]["of"] = evil
        case 3:
            facts["tensors"] = [evil]
        case 4:
            facts["aliases"] = {evil: evil}
        case 5:
            facts["output"] = at(evil)


def integers(facts: Facts, stream: Stream) -> None:
    huge = stream.choice([2**63, -(2**63), 2**64, 10**400, 2**62])
    nodes = facts["nodes"]
    match stream.randrange(5):
        case 0:
            before_the_loss(facts, node("viewed", "view.default", at("linear"), [huge, -1]))
        case 1:
            power = {
                "name": "power",
                "op": "python.pow",
                "args": [stream.choice([9, 2, 10]), stream.choice([huge, 99999])],
            }
            nodes[:0] = [power]
        case 2:
            square = [{"name": "m0", "op": "python.mul", "args": [2**40, 2**20]}]
            square += [{"name": f"m{i}", "op": "python.mul", "args": [at(f"m{i - 1}")] * 2} for i in range(1, 30)]
            nodes[:0] = square
        case 3:
            before_the_loss(facts, node("picked", "select.int", at("linear"), huge, 0))
        case 4:
            before_the_loss(facts, node("moved", "unfold.default", at("linear"), 0, 1, stream.choice([0, -1, huge])))


def nesting(facts: Facts, stream: Stream) -> None:
    if stream.randrange(2):
        deep: Any = 0
        for _ in range(stream.choice([100, 190, 300])):
            deep = [deep] if stream.randrange(2) else {"node": deep}
        some_node(facts, stream)["args"][-1] = deep
    else:
        block: Facts = {"name": "inner", "op": "no_grad", "args": [], "inputs": [], "nodes": [], "outputs": []}
        for _ in range(stream.choice([12, 40])):
            block = {**block, "nodes": [block]}
        facts["nodes"].insert(0, block)


def doubles(facts: Facts, stream: Stream) -> None:
    facts["nodes"].append(copy.deepcopy(stream.choice(facts["nodes"])))


def constants(facts: Facts, stream: Stream) -> None:
    """A file of tensors that is not there, is too large, or is another."""
    facts["constants"] = stream.choice(
        [
            {"bytes": 10, "sha256": "0" * 64},
            {"bytes": 2**60, "sha256": "0" * 64},
            {"bytes": -1, "sha256": ""},
            {"bytes": "10", "sha256": None},
            {"bytes": 8, "sha256": stream.choice(EVIL), "path": "../mark"},
        ]
    )


def writes(facts: Facts, stream: Stream) -> None:
    """Into parameters, at one or two removes."""
    op = stream.choice(["fill_.Scalar", "add_.Scalar", "mul_.Scalar"])
    before_the_loss(
        facts, node("seen", "view.default", at("parameter"), [-1]), node("part", "slice.Tensor", at("seen"), 0, 0, 4),
        node("same", "dropout.default", at("part"), 0.5, False), node("written", op, at("same"), 7),
    )  # fmt: skip


def kinds(facts: Facts, stream: Stream) -> None:
    junk: Any = stream.choice([None, 3, "x", [], {}, [[]], {"nodes": []}, True, 1.5])
    match stream.randrange(3):
        case 0:
            facts[stream.choice(["nodes", "requires", "parameters", "batch", "modes", "reference", "output"])] = (
                junk if junk not in ([], {}, None) else 7
            )
        case 1:
            facts["nodes"][stream.randrange(len(facts["nodes"]))] = junk
        case 2:
            facts["nodes"].append({"name": "item", "op": "python.getitem", "args": [at("linear"), junk]})


def windows(facts: Facts, stream: Stream) -> None:
    """Strides of 0 and their like, which crash kernels that do not look; weights that are too few."""
    image = node("image", "view.default", at("to"), [-1, 1, 8, 8])
    zero = stream.choice([0, -1, 2**40])
    before_the_loss(
        facts,
        *stream.choice(
            [
                [image, node("made", "max_pool2d.default", at("image"), [2, 2], [zero, 1])],
                [image, node("made", "avg_pool2d.default", at("image"), [zero, 2])],
                [image, node("made", "im2col.default", at("image"), [2, 2], [1, 1], [0, 0], [1, zero])],
                [image, node("made", "pixel_shuffle.default", at("image"), zero)],
                [image, node("made", "chunk.default", at("image"), zero)],
                [image, node("made", "channel_shuffle.default", at("image"), zero)],
                [node("made", "lstm.input", at("image"), [at("to")] * 2, [], True, 1, 0.0, True, False, False)],
            ]
        ),
    )


def slow(facts: Facts, stream: Stream) -> None:
    """Few elements, made in hours: products of long matrices, decompositions, derivatives that go through an axis."""
    wide = node("wide", "expand.default", at("one"), [1600, 1600])
    before_the_loss(
        facts, node("one", "ones.default", [1, 1]), wide,
        stream.choice(
            [
                node("made", "matmul.default", at("wide"), at("wide")),
                node("made", "linalg_svdvals.default", at("wide")),
                node("made", "linalg_matrix_exp.default", at("wide")),
                node("made", "cumprod.default", at("wide"), 1),
                node("made", "cdist.default", at("wide"), at("wide")),
                node("made", "inner.default", at("wide"), at("wide")),
            ]
        ),
    )  # fmt: skip


KINDS = [
    slow,
    operators,
    effects,
    arity,
    cycles,
    shapes,
    texts,
    names,
    integers,
    nesting,
    doubles,
    constants,
    writes,
    kinds,
    windows,
]


class Watch:
    """What the interpreter does between `start` and `stop`, by its own audit events."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on, self.seen = str(folder), False, set[str]()
        sys.addaudithook(self)

    def __call__(self, event: str, args: Any) -> None:
        if not self.on:
            return
        if event == "open":
            path, _, flags = args
            if not isinstance(path, int) and (not str(path).startswith(self.folder) or flags & 0o1103):
                self.seen.add(f"open {path!r}")
        elif event in ("os.listdir", "os.scandir") and str(args[0]) == self.folder:
            return
        elif event in ("import", "exec", "compile", "marshal.loads", "pickle.find_class") or event.startswith(
            ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "urllib.", "tempfile.")
        ):
            self.seen.add(f"{event} {args!r:.80}")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("hostile") / "run"
    run.mkdir()
    for name in ("run.json", "objective.json", *(f"step-{step:09d}.safetensors" for step in range(3))):
        shutil.copy(SAMPLES / "digits-sgd-seed0" / name, run / name)
    return run


@pytest.fixture
def intact(hostile: Path) -> Iterator[Path]:
    text = (hostile / "objective.json").read_text()
    yield hostile
    (hostile / "objective.json").write_text(text)


def refused(run: Path) -> str:
    with pytest.raises(BadInputError) as raised:
        load_objective("run", run=run, device="cpu")
    assert raised.value.exit_code == 3
    return str(raised.value)


def test_generated_programs_are_refused(intact: Path) -> None:
    path = intact / "objective.json"
    honest = json.loads(path.read_text())
    load_objective("run", run=intact, device="cpu")  # what is imported at first use,
    "\x1b".encode("unicode_escape")  # and the codec that shows control characters
    watch = Watch(intact)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(COUNT):
        stream = Stream(seed)
        facts = copy.deepcopy(honest)
        kind = KINDS[seed % len(KINDS)]
        kind(facts, stream)
        facts["checksum"] = checksum(facts)
        path.write_text(json.dumps(facts))
        watch.on = True
        try:
            load_objective("run", run=intact, device="cpu")
        except ObjectiveError as error:
            watch.on = False
            assert error.exit_code == 3 and len(str(error)) < 2000, (seed, kind.__name__)
            assert str(path.parent) in str(error), (seed, kind.__name__)
            assert kind is not slow or "operations, the most for" in str(error), (seed, str(error))
        except BaseException as error:
            watch.on = False
            raise AssertionError(f"{kind.__name__}, seed {seed}: {error!r}") from error
        else:
            watch.on = False
            raise AssertionError(f"{kind.__name__}, seed {seed}: it was loaded")
        assert not watch.seen, (kind.__name__, seed, watch.seen)
    assert not list(Path.cwd().glob("mark*"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000  # kB


def test_an_expression_is_never_evaluated(intact: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """Attack 1: sizes are integers and nodes; text in their place is refused by name, also by --dry-run."""
    mark = tmp_path / "mark"
    evil = f"[__import__('os').system('touch {mark}'), 64][1]"

    def change(facts: Facts) -> None:
        before_the_loss(facts, node("sized", "view.default", at("to"), [-1, {"expr_str": evil}]))

    with_facts(intact, change)
    for more in ([], ["--dry-run"]):
        done = cli("analyze", intact, "--objective", "run", "--out", tmp_path / "report", "--quiet", *more)
        assert done.code == 3 and "node 'sized' (aten.view.default): its argument size is" in done.err.replace(
            "\n", " "
        )
    assert not mark.exists()


class Mark:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_nothing_is_unpickled(intact: Path, tmp_path: Path) -> None:
    """Attack 2: the file of tensors is one of safetensors, whatever its checksum says."""
    mark = tmp_path / "mark"
    data = pickle.dumps(Mark(mark))
    (intact / "objective.safetensors").write_bytes(data)
    import hashlib

    found = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    with_facts(intact, lambda facts: facts.update(constants=found, tensors=["constant/a"]))
    assert "objective.safetensors" in refused(intact)
    (intact / "objective.safetensors").unlink()
    assert not mark.exists()


def test_operators_with_effects_are_not_there(intact: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Attack 3: aten.from_file would overwrite a file, aten._print write to the terminal, aten.ones take 3 GB."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine" * 100)
    text = (intact / "objective.json").read_text()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for nodes, reason in (
        (
            [node("evil", "from_file.default", str(victim), True, 16), node("written", "fill_.Scalar", at("evil"), 7)],
            "node 'evil' (aten.from_file.default): this operator is not among those that a program may use",
        ),
        (
            [node("said", "_print.default", "\x1b]0;mine\x07")],
            "node 'said' (aten._print.default): this operator is not",
        ),
        (
            [node("made", "ones.default", [3 << 28])],
            "node 'made' (aten.ones.default): the program would make more than",
        ),
    ):
        (intact / "objective.json").write_text(text)
        with_facts(intact, lambda facts, nodes=nodes: before_the_loss(facts, *nodes))  # type: ignore[misc]
        assert reason in refused(intact)
    assert victim.read_bytes() == b"mine" * 100
    assert "\x1b" not in "".join(capfd.readouterr())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000
