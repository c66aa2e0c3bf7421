"""f(x; z) and its gradient, at any parameters x, on any recorded sample z.

The model is never changed: `functional_call` puts x and copies of the buffers in its place for one evaluation. So every
point of a step starts from the same buffers and the same randomness, and losses that are subtracted differ in x alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.dropout import _DropoutNd

from trajcheck.errors import ObjectiveError, TrajcheckError
from trajcheck.files.torch_tensors import FLOATING
from trajcheck.objective.curvature.hessian import Hessian, functions_checked
from trajcheck.objective.dispatch.draws import DrawnElsewhere, DrawsIn, drawn_since, states
from trajcheck.objective.dtype_names import AS_IS
from trajcheck.objective.evaluation.backward import gradients
from trajcheck.objective.evaluation.model_state import ModelState
from trajcheck.objective.evaluation.values import convert, scalar, value_and_count
from trajcheck.objective.exported import ExportedModel
from trajcheck.objective.file import Loss, describe, traits_of
from trajcheck.objective.forward_states import states_of_forwards
from trajcheck.objective.freed_memory import keep_freed_memory
from trajcheck.objective.full_precision import evaluation, value_for_a_while
from trajcheck.objective.modules_beside import beside
from trajcheck.objective.parameter_names import attribute_around, match_parameters, parameter_aliases
from trajcheck.objective.precision import DTYPES, Casts, CastsInCode, floating_dtypes, in_width, narrower
from trajcheck.objective.sample import Sample, process_generators_untouched
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.modes import Modes

T = TypeVar("T")

#: Sees the gradients of w_i f_i of the micro-batches, by number, one after the other.
Each = Callable[[int, Mapping[str, Tensor]], None]


class Objective:
    """A model and its loss(model, batch), to be evaluated at parameters from outside.

    `names` are the parameters' canonical names (without `module.` and the like), tied ones once; after `check` they are
    the run's. `trainable` are those that get a gradient. `data` is the data set, batch by batch, if the file gives it.
    A model in evaluation mode is put in training mode, unless it is to be taken `as_it_is`; one in training mode is
    left as it is, parts in evaluation mode included.

    What is no parameter or buffer of model or loss, nor a random stream of Python, numpy or torch (a counter in the
    model, a generator of its own) cannot be reset between evaluations, and must not influence the loss.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        device: torch.device | str = "cpu",
        title: str = "objective",
        path: Path | None = None,
        data: Iterable[Any] | None = None,
        as_it_is: bool = False,
    ) -> None:
        self.device, self.title, self.data = torch.device(device), title, data
        self.note = ""  # of an exported program: how its golden value was checked
        self.seconds = 0.0  # and how long that value took; 0 where it was not evaluated
        self.sources: Mapping[str, str] = {}  # the hash of each file that it was made from
        self.facts: Mapping[str, Any] = {}  # of its data: which, and what was drawn from it
        self.cast_to: frozenset[torch.dtype] = frozenset()  # what its code casts to, for digits
        self.makes: frozenset[str] = frozenset()  # buffers that follow from its config.json
        self.probes: tuple[Any, ...] = ()  # batches that were drawn from its data
        self.permutations: Any = None  # PERMUTATIONS of the objective file, not checked yet
        self.weight: Callable[[Any], Any] | None = None  # how much a batch weighs in the mean over the data set
        self.count: Any = None  # what the loss returned with its last value, in a pair (value, count)
        self.dtype: torch.dtype | None = None  # that of all of it; None: each tensor has its own
        self._loss, self.path = loss, path
        self._prepared = False  # inside `several`
        self._other_calls = ""  # why draws were not the step's, at any evaluation
        self.put_in_training = not (model.training or as_it_is)
        if self.put_in_training:
            model.train()
        self._state = ModelState(model, loss, self._error)
        self._scope = self._state.scope.to(self.device)
        self._made = floating_dtypes(list(model.parameters()))
        self._exported = isinstance(model, ExportedModel)  # whose graph sees to its casts itself
        self.casts = Casts((), None)  # what becomes of the dtypes that the model's code names
        self.draws_in: torch.dtype | None = None  # the dtype of random numbers, where that is narrower than `dtype`
        self._draws = False  # whether any evaluation drew some
        self._aliases = parameter_aliases(model, f"objective {title}")
        self._parameters = {canonical(name): (name, p) for name, p in model.named_parameters()}
        self._name_here = {name: name for name in self._parameters}
        self.trainable = tuple(name for name, (_, p) in self._parameters.items() if p.requires_grad)
        traits = model.exported_traits if isinstance(model, ExportedModel) else traits_of(model)
        self._copies = traits.writes_weights
        owners = [id(parameter) for _, parameter in self._scope.named_parameters(remove_duplicate=False)]
        self._tied = len(set(owners)) < len(owners)
        # cuDNN keeps the dropout state of a recurrent network to itself: two evaluations would draw two masks.
        self._cudnn_dropout = self.device.type == "cuda" and traits.recurrent_dropout
        # cuDNN's recurrent networks have no second derivative.
        self._recurrent = traits.recurrent

    @property
    def exported_modes(self) -> Modes | None:
        """The modes that a recorded program was made in, and stays in."""
        return self._state.exported

    @property
    def never_negative(self) -> bool:
        """Whether that is known of the loss: an exported program tells."""
        bound = getattr(self._loss, "lower_bound", None)
        return bound is not None and self.exported_modes is not None and bound() >= 0

    @property
    def copies_points(self) -> bool:
        """Whether every evaluation copies its point, because the model writes into its weights."""
        return self._copies

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._name_here)

    def prepare(self, dtype: str, recorded: Mapping[str, torch.dtype] | None = None) -> Objective:
        """Convert model and loss to a dtype by name, as precision.py says, or keep each tensor as it was in training.

        `recorded` are the dtypes of the run's parameters, by its names: those that "as-is" means, and which of the
        dtypes in the model's code were the model's own. A model whose parameters are all of the dtype that is asked for
        is left as it is, buffers of other dtypes included.
        """
        recorded = recorded or {}
        own = self._made | {each for each in recorded.values() if in_width(each, torch.float64) is torch.float64}
        if dtype == AS_IS:
            self.dtype = None
            for name, wanted in recorded.items():
                if name in self._name_here:
                    convert(self._parameters[self._name_here[name]][1], wanted)
        else:
            self.dtype = DTYPES[dtype]
            if own != {self.dtype} or floating_dtypes(self.tensors) != {self.dtype}:  # an earlier call converted it
                self._scope._apply(lambda tensor: tensor.to(in_width(tensor.dtype, self.dtype)))
        self.casts = Casts(own | self.cast_to, self.dtype)
        self.draws_in = narrower(own, self.dtype)
        return self

    def modules(self) -> Iterator[nn.Module]:
        """Those of model and loss."""
        return self._scope.modules()

    @property
    def tensors(self) -> list[Tensor]:
        """The parameters as they stand in the model: of the dtypes of the replay, whatever their values."""
        return [parameter for _, parameter in self._parameters.values()]

    def value_of(self, name: str) -> Tensor:
        """The objective's own value of a parameter, which no evaluation changes."""
        return self._parameters[self._name_here[name]][1].detach()

    @contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """Around a call of the user's code that is no evaluation; what it raises is an ObjectiveError."""
        with self._conditions(), self._translated("", what):
            yield

    @contextmanager
    def in_evaluation_mode(self) -> Iterator[None]:
        """All modules of model and loss in evaluation mode for a while."""
        with ExitStack() as stack:
            for module in self._scope.modules():
                stack.enter_context(value_for_a_while(module, "training", False))
            yield

    @property
    def epsilon(self) -> float:
        """The machine epsilon of the coarsest parameter."""
        return max((torch.finfo(dtype).eps for dtype in floating_dtypes(self.tensors)), default=0.0)

    def dtype_of(self, name: str) -> torch.dtype:
        """That of a parameter in the replay."""
        return self._parameters[self._name_here[name]][1].dtype

    def check(
        self,
        parameters: Mapping[str, tuple[int, ...]],
        aliases: Mapping[str, str] | None = None,
        trainable: Iterable[str] | None = None,
    ) -> None:
        """Fit the objective to a run: from here on, parameters and gradients go by the run's names.

        `parameters` are the run's names (frozen ones included) and shapes, `aliases` its tied names, alias -> name, and
        `trainable` the names that the run trained (None: those that require a gradient here).
        Errors: ObjectiveError where names or shapes differ, or where only one of the two ties a pair.
        """
        shapes = {name: tuple(p.shape) for name, (_, p) in self._parameters.items()}
        self._state.around = attribute_around({*parameters, *(aliases or {})}, self._aliases.values())
        known = {name.removeprefix(self._state.around): here for name, here in self._aliases.items()}
        matched, problems = match_parameters(parameters, aliases or {}, shapes, known)
        if problems:
            raise self._error(
                "", f"it does not fit the run: {'; '.join(problems)}. It must make the model that was recorded"
            )
        if trainable is None:
            trainable = [name for name, here in matched.items() if self._parameters[here][1].requires_grad]
        self._name_here = matched
        wanted = set(trainable)
        self.trainable = tuple(name for name in matched if name in wanted)

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """Dropout of torch's own modules switched off for a while; F.dropout in a forward is not seen."""
        with ExitStack() as stack:
            for module in self._scope.modules():
                if isinstance(module, _DropoutNd):
                    stack.enter_context(value_for_a_while(module, "p", 0.0))
                elif isinstance(module, nn.MultiheadAttention | nn.RNNBase):
                    stack.enter_context(value_for_a_while(module, "dropout", 0.0))
            yield

    def randomness(self, sample: Sample) -> str:
        """Where the draws of an evaluation come from, in words, for the report; complete after the evaluation."""
        if sum(sample.forwards) > len(sample.weights) and self._other_calls:
            return self._other_calls
        if self._cudnn_dropout and sample.randomness.startswith("recorded"):
            return "seeded: the dropout of cuDNN's recurrent networks is not in the recorded generator state"
        return sample.randomness

    def loss(self, parameters: Mapping[str, Tensor], sample: Sample, *, where: str = "") -> Tensor:
        """f(x; z) = sum_i weight_i loss(model at x, batch_i), float64 [], on the device.

        NaN and Inf are returned as they are, and `parameters` are not changed. `where`, such as
        "step 120, at x_{t-1}", stands in the message of an ObjectiveError.
        """
        return self._evaluate(parameters, sample, where, ())[0]

    def loss_and_gradient(
        self, parameters: Mapping[str, Tensor], sample: Sample, *, where: str = "", each: Each | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """f(x; z) as `loss`, and grad f(x; z) by name, for the trainable parameters, in the replay's dtype.

        A parameter that the loss does not use has gradient zero. `each` sees the gradient of weight_i loss_i of every
        micro-batch, and leaves it as it is; where the evaluation has to begin anew, it begins at 0 again.
        """
        return self._evaluate(parameters, sample, where, self.trainable, each)

    def hessian(
        self, parameters: Mapping[str, Tensor], sample: Sample, *, where: str = "", keep_graph: bool = True
    ) -> Hessian:
        """The Hessian of f(.; z) at x, for products with vectors; its vectors hold the `trainable` parameters in order.

        The evaluation is that of `loss_and_gradient` with kernels that can be differentiated twice: attention without
        fusion (whose dropout draws other masks on a GPU than fused attention does), recurrent networks without cuDNN.
        `parameters` must stay as they are while it is in use.
        `keep_graph` False saves memory at the price of time, as curvature.Hessian says.
        """
        xs = self._points(parameters)
        wanted: list[Tensor] = [xs[name] for name in self.trainable]
        if not wanted:
            raise self._error(where, "no parameter is trainable, and there is no Hessian")

        def inside(work: Callable[[], T]) -> T:
            def translated() -> T:
                with self._translated(where, "the second derivative of the loss"), self._casting():
                    return work()

            return self._inside(parameters, xs, sample, where, translated, twice=True)

        def parts() -> Iterator[tuple[Tensor, list[Tensor]]]:
            for value, weight in self._values(sample, where):
                with self._translated(where, "the second derivative of the loss"), functions_checked(value):
                    gradient = self._gradient(weight * value, wanted, where, create_graph=True)
                yield weight * value.detach().to(self.device, torch.float64), gradient

        return Hessian(wanted, parts, inside, keep_graph=keep_graph)

    def mode_in_words(self, modes: Modes | None) -> str:
        """In which mode a sample of these modes is evaluated; None: the objective's own."""
        own = self._state.in_words(modes)
        if modes is not None:
            return own
        return f"{own} (none was recorded: the objective's own{', put in training' * self.put_in_training})"

    def statistics_read(self, modes: Modes | None) -> set[str]:
        """The batch statistics, by name, that are read in these modes: those of modules in evaluation."""
        return self._state.statistics_read(modes)

    def buffers_read(self, modes: Modes | None, known: Iterable[str]) -> set[str]:
        """The model's buffers that a loss may read in these modes, as `ModelState.buffers_read` says."""
        return self._state.buffers_read(modes, known)

    def batch_statistics(
        self, parameters: Mapping[str, Tensor], samples: Sequence[Sample], buffers: Mapping[str, Tensor], *, where: str
    ) -> dict[str, Tensor]:
        """The batch statistics at x: means over the batches of all samples, from a pass in training mode, each batch
        counting once, as torch.optim.swa_utils.update_bn computes them. Empty where the model has none."""
        modules = dict(self._state.normalised())
        own = {name: self._state.statistic(name, where) for name in modules}
        found = {
            name: torch.ones_like(buffer) if name.endswith("running_var") else torch.zeros_like(buffer)
            for name, buffer in own.items()
        }

        def one_pass(sample: Sample) -> dict[str, Tensor]:
            with torch.no_grad():
                for _ in self._values(sample, where):
                    pass
            return {n: self._state.statistic(n, where).clone() for n in modules}

        with ExitStack() as stack:
            for module in set(modules.values()):
                stack.enter_context(value_for_a_while(module, "momentum", None))
            for sample in samples if modules else ():
                here = replace(sample, buffers={**buffers, **found}, modes={}, rank_buffers={}, apart=False)
                found = self._inside(parameters, self._points(parameters), here, where, partial(one_pass, here))
        return found

    def _evaluate(
        self,
        parameters: Mapping[str, Tensor],
        sample: Sample,
        where: str,
        trainable: tuple[str, ...],
        each: Each | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        xs = self._points(parameters)
        work = self._work(sample, where, [xs[name] for name in trainable], each)
        loss, gradients = self._inside(parameters, xs, sample, where, work)
        return loss, dict(zip(trainable, gradients, strict=True))

    def _points(self, parameters: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
        """x by name, as what stands in the model's place during an evaluation."""
        xs = {}
        learns = set(self.trainable)
        for name, here in self._name_here.items():
            own = self._parameters[here][1]
            x = parameters[name].detach().to(own.device, own.dtype, copy=self._copies)
            if type(own) is not nn.Parameter and own.dtype not in FLOATING:
                # Codes of a class of their own (quantised weights) know more than their bytes, such as their scales.
                if x.shape != own.shape or not torch.equal(x, own.data):
                    raise self._error(
                        "",
                        f"the frozen {name} is a {type(own).__name__}, whose codes say nothing by themselves: NAME() "
                        "must make it with the run's values, and makes others",
                    )
                xs[name] = own
                continue
            # A Parameter, not a detached tensor: recurrent networks on a GPU lay their weights out anew. It requires
            # a gradient also for the loss alone, since torch has other kernels (attention) where nothing does.
            xs[name] = nn.Parameter(x, requires_grad=name in learns)
        return xs

    def _inside(
        self,
        parameters: Mapping[str, Tensor],
        xs: Mapping[str, nn.Parameter],
        sample: Sample,
        where: str,
        work: Callable[[], T],
        *,
        twice: bool = False,
    ) -> T:
        """work() with `xs` and the sample's buffers in the model; `twice` where it differentiates a second time."""
        try:
            return self._once_inside(parameters, xs, sample, where, work, twice)
        except DrawnElsewhere:  # from here on every evaluation draws as the training did
            return self._once_inside(parameters, xs, sample, where, work, twice)

    def _once_inside(
        self,
        parameters: Mapping[str, Tensor],
        xs: Mapping[str, nn.Parameter],
        sample: Sample,
        where: str,
        work: Callable[[], T],
        twice: bool,
    ) -> T:
        self._state.take_modes(sample, where)
        tensors: dict[str, Tensor] = self._state.fresh_buffers(
            sample, where, self.device, self.dtype if self.casts.any else None
        )
        for name, x in xs.items():
            tensors[f"model.{self._parameters[self._name_here[name]][0]}"] = x
        versions = {name: parameters[name]._version for name in xs}
        with (
            nullcontext() if self._prepared and not twice else self._conditions(twice),
            sdpa_kernel(SDPBackend.MATH) if twice else nullcontext(),
            self._drawing(),
        ):
            # Where nothing is tied, looking for what is would take longer than a small model's layers.
            result = torch.func.functional_call(self._scope, tensors, (work,), tie_weights=self._tied)
        for name, x in xs.items():
            if parameters[name]._version != versions[name] and parameters[name].data_ptr() == x.data_ptr():
                raise self._error(where, f"the loss changed the parameter {name} in place; it must leave it as it is")
        return result

    @contextmanager
    def several(self) -> Iterator[None]:
        """Around several evaluations: the conditions that each would set and put back are set once. Nothing else of
        the process should run inside; its random streams are as they were afterwards."""
        keep_freed_memory()
        with self._conditions():
            self._prepared = True
            try:
                yield
            finally:
                self._prepared = False

    @contextmanager
    def _conditions(self, twice: bool = False) -> Iterator[None]:
        with (
            process_generators_untouched(self.device),
            evaluation(self.device, self.dtype, use_cudnn=not (self._cudnn_dropout or (twice and self._recurrent))),
            beside(self.path),
        ):
            yield

    def _casting(self) -> AbstractContextManager[object]:
        """Around the model's own code alone, whose every call of torch is looked at: the dtypes that it names are those
        of the replay."""
        return CastsInCode(self.casts) if self.casts.any and not self._exported else nullcontext()

    def _drawing(self) -> AbstractContextManager[object]:
        """Random numbers as the training drew them, where the replay's dtype gives others."""
        if not (self._draws and self.draws_in and self.dtype):
            return nullcontext()
        return DrawsIn(self.draws_in, self.dtype)

    def _work(
        self, sample: Sample, where: str, wanted: list[Tensor], each: Each | None
    ) -> Callable[[], tuple[Tensor, list[Tensor]]]:
        """The evaluation. Backward belongs to it: checkpointed layers run their forward again there."""

        def work() -> tuple[Tensor, list[Tensor]]:
            total = torch.zeros((), dtype=torch.float64, device=self.device)
            gradients: list[Tensor] = []
            for number, (value, weight) in enumerate(self._values(sample, where)):
                if wanted:
                    with self._translated(where):
                        parts = self._gradient(value * weight if weight != 1 else value, wanted, where)
                    if each is not None:
                        each(number, dict(zip(self.trainable, parts, strict=True)))
                    # Not in place: autograd may hand out one tensor for two parameters. One after the other, so that
                    # there are never three of all.
                    gradients = [a + parts.pop(0) for a in _emptied(gradients)] if gradients else parts
                total = total + weight * value.detach().to(self.device, torch.float64)
            return total, gradients

        return work

    def _values(self, sample: Sample, where: str) -> Iterator[tuple[Tensor, float]]:
        """The loss of each micro-batch, with its graph, and its weight."""
        begins = {name: b.clone() for name, b in self._scope.named_buffers()} if sample.apart else {}
        for i, (batch, weight) in enumerate(zip(sample.batches(where), sample.weights, strict=True)):
            sample.set_generators(i, self.device)
            began = states(self.device) if self.draws_in and not self._draws else ()
            if i:
                self._state.put_back(begins)
            self._state.set_buffers(sample.rank_buffers.get(i, {}), where)
            with (
                self._translated(where),
                states_of_forwards(sample, i, self._scope.model, self.device) as calls,
                self._casting(),
            ):
                value, self.count = value_and_count(self._loss(self._scope.model, batch))
            self._other_calls = calls.differ or self._other_calls
            if began and drawn_since(began, self.device):
                self._draws = True
                raise DrawnElsewhere
            yield scalar(value, where, self._error), weight

    def _gradient(self, value: Tensor, wanted: list[Tensor], where: str, *, create_graph: bool = False) -> list[Tensor]:
        found: tuple[Tensor | None, ...] = (None,)
        if value.requires_grad:
            with self._casting():
                found = gradients([value], wanted, keep_graph=create_graph, create_graph=create_graph)
        if all(part is None for part in found):
            raise self._error(
                where,
                "the loss does not depend on any parameter through autograd; compute it from the model that loss() is "
                "given, without detach(), item() or no_grad()",
            )
        parts = [torch.zeros_like(x) if part is None else part for x, part in zip(wanted, found, strict=True)]
        return [(part.to_dense() if part.layout != torch.strided else part).contiguous() for part in parts]

    @contextmanager
    def _translated(self, where: str, what: str = "the loss") -> Iterator[None]:
        try:
            yield
        except (TrajcheckError, DrawnElsewhere):
            raise
        except (Exception, SystemExit) as error:
            text = f"{what} raised {describe(error, self.path)}"
            if isinstance(error, torch.OutOfMemoryError):
                text += "; use a smaller --replay-dtype or --device cpu"
            raise self._error(where, text) from error

    def _error(self, where: str, text: str) -> ObjectiveError:
        return ObjectiveError(f"objective {self.title}{where and ', '}{where}: {text}")


def _emptied(tensors: list[Tensor]) -> Iterator[Tensor]:
    """The tensors in order; the list holds each only until its turn."""
    tensors.reverse()
    while tensors:
        yield tensors.pop()
