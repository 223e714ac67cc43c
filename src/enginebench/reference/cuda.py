"""The reference engine on NVIDIA GPUs: weights drawn on the device, decode steps replayed from CUDA graphs.

A decode step of a large model is hundreds of small kernels: starting them one by one takes longer than running them.
So the step is recorded once for each of some numbers of slots and lengths of context, and a step replays the smallest
that covers what is decoded. Prompts run as they do everywhere. Of a pipeline every stage has a GPU and recordings of
its own. Torch is imported here and in ``reference.torch_ops``.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

from enginebench.errors import BuildError
from enginebench.reference.engine import Engine, Scores
from enginebench.reference.options import ReferenceOptions
from enginebench.reference.stage import Span, Stage
from enginebench.reference.torch_ops import TorchOps
from enginebench.reference.weights import scale_of, stage_of, weight_shapes

SHORTEST_CONTEXT = 256
"""Positions that every decode step reads at least; the next lengths double."""


def open_cuda_engine(options: ReferenceOptions) -> "CudaEngine":
    """Draw the weights, record the decode steps. Raises BuildError without torch, enough GPUs, or enough memory."""
    try:
        import torch
    except ImportError as error:
        raise BuildError(f"The reference build needs torch to run on cuda ({error}): install it.") from error
    if not torch.cuda.is_available():
        raise BuildError("The reference build is for cuda, and torch sees no GPU here: build it with --device cpu.")
    if (seen := torch.cuda.device_count()) < options.pp_size:
        needs = f"needs {options.pp_size} GPUs, one a stage (pp_size)"
        raise BuildError(f"The reference build {needs}, and torch sees {seen}: widen CUDA_VISIBLE_DEVICES.")
    try:
        return CudaEngine(options)
    except torch.cuda.OutOfMemoryError as error:
        raise BuildError(
            f"The reference build does not fit the GPU's memory ({error}): take fewer layers or slots."
        ) from error


class CudaEngine(Engine):
    """An engine on the first CUDA devices, one for each stage."""

    def __init__(self, options: ReferenceOptions) -> None:
        import torch

        self._used_with_context = [_used_bytes(place) for place in range(options.pp_size)]  # before anything is there
        torch.backends.cuda.enable_cudnn_sdp(False)  # cuDNN plans attention anew for every length of a prompt
        ops = [TorchOps(options.dtype, f"cuda:{place}") for place in range(options.pp_size)]
        super().__init__(options, draw_weights(options, ops), ops)
        self._graphs = DecodeGraphs(self.stages, options)

    def facts(self) -> dict[str, Any]:
        """As every engine's, which devices and torch it is, and what their contexts take."""
        import torch

        names = dict.fromkeys(torch.cuda.get_device_name(place) for place in range(len(self.stages)))
        device = {"gpu": ", ".join(names), "torch": torch.__version__, "cuda": torch.version.cuda}
        memory = {"used_with_context_bytes": self._used_with_context}
        return {**super().facts(), **device, **memory, "decode_graphs": len(self._graphs)}

    def forward(self, spans: Sequence[Span]) -> Scores:
        """As every engine's; spans of one token are replayed together, after the others."""
        prompts = [span for span in spans if len(span.token_ids) > 1]
        decodes = [span for span in spans if len(span.token_ids) == 1]
        by_slot: dict[int, tuple[int, Any]] = {}
        if prompts:
            scores = super().forward(prompts)
            answers = zip(scores.best, scores.logits, strict=True)
            by_slot |= {span.slot: answer for span, answer in zip(prompts, answers, strict=True)}
        if decodes:
            ids, rows = self._graphs.replay(decodes)
            by_slot |= {span.slot: (ids[span.slot], rows[span.slot]) for span in decodes}
        best, logits = zip(*(by_slot[span.slot] for span in spans), strict=True)
        return Scores(best, logits, self.stages[-1].ops.on_host)


class DecodeGraphs:
    """A decode step, recorded for 1, 2, 4 … slots and for contexts of 256, 512 … positions, stage by stage."""

    def __init__(self, stages: Sequence[Stage], options: ReferenceOptions) -> None:
        import torch

        slots, self._idle = options.max_batch_size, options.max_seq_len
        self._slots, self._contexts = doubling(1, slots), doubling(SHORTEST_CONTEXT, options.max_seq_len)
        self._staged = torch.zeros((2, slots), dtype=torch.int64, pin_memory=True)  # ids, positions
        sizes = list(product(reversed(self._slots), reversed(self._contexts)))
        self._stages = [RecordedStage(stage, sizes, options.hidden) for stage in stages]

    def __len__(self) -> int:
        return len(self._slots) * len(self._contexts) * len(self._stages)

    def replay(self, spans: Sequence[Span]) -> tuple[list[int], Any]:
        """Compute ``spans``, of one token each; return the best id and the logits by slot, valid until the next."""
        count = _covering(self._slots, 1 + max(span.slot for span in spans))
        context = _covering(self._contexts, 1 + max(span.start for span in spans))
        staged = self._staged.numpy()
        staged[0], staged[1] = 0, self._idle
        for span in spans:
            staged[:, span.slot] = span.token_ids[0], span.start
        given, positions = self._staged[:, :count]
        for stage in self._stages:
            given = stage.replay(given, positions, context)
        best, logits = given
        return best.tolist(), logits


class RecordedStage:
    """What a stage does in a decode step, recorded for ``sizes``: slots and context, the largest of both first.

    The graphs share their memory: what a replay hands on is valid until the next one.
    """

    def __init__(self, stage: Stage, sizes: Sequence[tuple[int, int]], hidden: int) -> None:
        import torch

        ops, (slots, context) = stage.ops, sizes[0]
        self._given = ops.ids([0] * slots) if stage.first else ops.zeros((slots, hidden))
        self._positions = ops.ids([0] * slots)
        stage.decode(self._given, self._positions, context)  # libraries choose and load kernels outside a recording
        self._graphs: dict[tuple[int, int], tuple[Any, Any]] = {}
        pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(ops.device)
        for count, length in sizes:  # the largest first: the others fit into its memory
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.device(ops.device), torch.cuda.graph(graph, pool=pool, stream=stream):
                handed_on = stage.decode(self._given[:count], self._positions[:count], length)
            self._graphs[count, length] = (graph, handed_on)

    def replay(self, given: Any, positions: Any, context: int) -> Any:
        """Copy ``given`` and ``positions`` (n,) to its device, compute them; return what is handed on."""
        count = len(positions)
        self._given[:count].copy_(given, non_blocking=True)
        self._positions[:count].copy_(positions, non_blocking=True)
        graph, handed_on = self._graphs[count, context]
        graph.replay()
        return handed_on


def doubling(first: int, last: int) -> list[int]:
    """``first``, twice that, … below ``last``, and ``last``."""
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return [*sizes, last]


def draw_weights(options: ReferenceOptions, ops: Sequence[TorchOps]) -> dict[str, Any]:
    """Draw the weights on the first device from the build's seed, distributed as ``reference.weights`` does.

    ``ops``: of each stage, to whose devices they go. However many stages there are, the weights are the same.
    """
    import torch

    generator = torch.Generator(ops[0].device).manual_seed(options.seed)

    def draw(name: str, shape: tuple[int, ...]) -> Any:
        place = ops[stage_of(name, options.stages)]
        if (scale := scale_of(name, shape)) is None:
            return torch.ones(shape, dtype=place.dtype, device=place.device)
        drawn = torch.randn(shape, generator=generator, dtype=place.dtype, device=ops[0].device)
        return drawn.mul_(scale).to(place.device)

    weights = {name: draw(name, shape) for name, shape in weight_shapes(options).items()}
    torch.cuda.empty_cache()  # what was drawn for other devices
    return weights


def _used_bytes(place: int) -> int:
    """What a device has in use, this process's context included."""
    import torch

    free, total = torch.cuda.mem_get_info(place)
    return int(total - free)


def _covering(sizes: Sequence[int], wanted: int) -> int:
    return next(size for size in sizes if size >= wanted)
