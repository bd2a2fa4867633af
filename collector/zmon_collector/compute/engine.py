"""From the rows of open windows to finished reports.

    rows → MicroBatcher → steps on executors → partial results → WindowFinalizer → ClosedWindow
                                                       └→ Checkpointer → bytes for the journal

Everything here runs on the collector's thread. The executors do the work, and `advance` collects what they have done.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Container, Iterator

from zmon_collector.compute.accumulate import AgentRows, pause_after
from zmon_collector.compute.batcher import QUEUE_BYTES, MicroBatcher
from zmon_collector.compute.checkpoint_codec import Checkpoint
from zmon_collector.compute.checkpointer import Checkpointer, Done
from zmon_collector.compute.contexts import ContextFactory
from zmon_collector.compute.executors import MetricExecutor
from zmon_collector.compute.finalizer import ClosedWindow, WindowFinalizer
from zmon_collector.compute.memory import MetricMemory
from zmon_collector.compute.merge import WindowParts
from zmon_collector.compute.preview import Show, preview
from zmon_collector.compute.references import References
from zmon_collector.compute.sample_budget import SampleBudget
from zmon_collector.compute.scheduler import Scheduler
from zmon_collector.compute.window_contract import Contract, ContractBook
from zmon_collector.compute.window_state import Phase, WindowKey, WindowState
from zmon_collector.config import Config
from zmon_collector.config.policy import PolicyStore
from zmon_collector.plugins import Registry
from zmon_collector.windows.window import ModelKey, OpenWindow

HANDOVER = 0.01  # seconds of a turn in which rows are handed to the executors: acknowledgements wait meanwhile


class Engine:
    """Computes the windows of all models.

    Parameters
    ----------
    config : Config
        Its bound over all samples, its threads for the built-in metrics, and the seconds that a metric may take.
    registry : Registry
    policies : PolicyStore
    wake : callable
        Called from any thread when `advance` has something to do.
    patience : float, optional
        Seconds that a checkpoint waits for plugins, by default those of a live collector.

    Attributes
    ----------
    memory : MetricMemory
    references : References
    contracts : ContractBook
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        policies: PolicyStore,
        wake: Callable[[], None],
        patience: float | None = None,
    ) -> None:
        self.memory = MetricMemory()
        self.references = References(policies, self.memory)
        self.contracts = ContractBook(policies, self.references, registry)
        self._policies = policies
        self._wake = wake
        self._windows: OrderedDict[WindowKey, WindowState] = OrderedDict()
        self._closing: deque[WindowState] = deque()  # whose last rows are handed to the executors
        self._scheduler = Scheduler(config.collector, registry, wake)
        self._budget = SampleBudget(config.limits.sample_bytes)
        self._contexts = ContextFactory(self.memory)
        self._batcher = MicroBatcher(self._scheduler, self._contexts, self._budget)
        self._checkpointer = Checkpointer(self._scheduler, self._batcher, patience)
        self._finalizer = WindowFinalizer(self._scheduler, self._contexts, self._budget)

    # --- state -------------------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Bytes of rows that wait for the built-in metrics: when there are many, receiving pauses."""
        return self._scheduler.builtin.nbytes + self._batcher.nbytes

    @property
    def gathered(self) -> int:
        """Bytes of rows that no step has yet."""
        return self._batcher.nbytes

    @property
    def longest_queue(self) -> int:
        """Bytes of rows that wait for the executor that has most of them."""
        return max(executor.nbytes for executor in self._scheduler.executors.values())

    @property
    def idle(self) -> bool:
        """Whether no window is closing and no step is under way."""
        return not self._closing and self._finalizer.idle and self._scheduler.idle

    @property
    def ended_steps(self) -> int:
        """Steps that have ended so far, a sign of progress."""
        return sum(executor.ended_steps for executor in self._scheduler.executors.values())

    @property
    def executors(self) -> Collection[MetricExecutor]:
        """The executors of all plugins."""
        return self._scheduler.executors.values()

    @property
    def smallest_sample(self) -> int:
        """Rows to which `sample_bytes` lowered a sample last; 0: never."""
        return self._budget.smallest

    # --- rows in -----------------------------------------------------------------------------------------------------

    def add_rows(self, model: ModelKey, window: OpenWindow, rows: AgentRows) -> None:
        """Add rows to a window. They are computed on as soon as enough of them have gathered.

        Pairs that a late label has completed are added here as well: they are not rows of the window.
        """
        self._batcher.add(self._state(model, window), rows)
        self._bound()

    def _bound(self) -> None:
        """Flush when too many rows gather. Rows of a held window go on gathering until it is open again."""
        if self._batcher.nbytes > QUEUE_BYTES:
            self.relieve(QUEUE_BYTES)

    def relieve(self, most: int) -> None:
        """Compute on rows that have gathered until no more than `most` bytes do: a slice of them, windows in turn.

        All at once, rows of a hundred thousand agents would take ten seconds to hand over.
        """
        pause = pause_after(HANDOVER)
        for _ in range(len(self._windows)):
            if self._batcher.nbytes <= most:
                return
            key = next(iter(self._windows))
            self._windows.move_to_end(key)
            if self._windows[key].phase is Phase.OPEN:
                self._batcher.flush(self._windows[key])
            if pause():
                return

    def flush(self) -> None:
        """Compute on all rows that have gathered, however few."""
        for state in self._windows.values():
            if state.phase is Phase.OPEN:
                self._batcher.flush(state)

    def rows(self, model: ModelKey, window: OpenWindow) -> dict[str, int]:
        """Return the number of rows received for a window, by agent."""
        state = self._windows.get((model, window.start, window.number))
        return {name: agent.rows for name, agent in state.agents.items()} if state else {}

    def unfinished(self) -> Iterator[tuple[ModelKey, OpenWindow]]:
        """Yield the windows that have begun and are not done."""
        for state in self._windows.values():
            yield state.model, state.window

    def open(self, model: ModelKey, window: OpenWindow, contract: Contract | None = None) -> Contract:
        """Fix what holds for a window, unless that is done: `contract` of an earlier run, or what holds now."""
        return self._state(model, window, contract).contract

    def _state(self, model: ModelKey, window: OpenWindow, contract: Contract | None = None) -> WindowState:
        """Return what there is of a window."""
        key = model, window.start, window.number
        state = self._windows.get(key)
        if state is None:
            contract = contract or self.contracts.current(model)
            state = self._windows[key] = WindowState(model, window, contract, memory=self.memory.of(model))
            state.absent |= self.contracts.absent(contract) | self._scheduler.absent(model)
        if state.referenced is not window.schema and not window.undecided:  # labels open windows that rows decide on
            state.reference = self.references.fitting(model, state.contract.profile, window.schema)
            state.referenced = window.schema
        return state

    # --- what the executors have done --------------------------------------------------------------------------------

    def advance(self) -> list[ClosedWindow]:
        """Collect what the executors have done; return the windows that are done by it, in order for each model."""
        self._scheduler.collect(self._windows.values())
        self._hand_over()
        self._checkpointer.advance()
        self._bound()  # rows of a window that was held may be above it, and no further ones may come
        closed = self._finalizer.advance()
        for report in closed:
            del self._windows[report.model, report.window.start, report.number]
        return closed

    def close(self, model: ModelKey, window: OpenWindow) -> None:
        """Finish a window, which takes no more rows, after the earlier ones of its model."""
        state = self._state(model, window)
        state.enter(Phase.CLOSING)
        self._closing.append(state)

    def _hand_over(self) -> None:
        """Start the last steps of windows that are closing, for a slice of time, and then let them finish."""
        pause = pause_after(HANDOVER)
        while self._closing and self._batcher.flush(self._closing[0], pause):
            self._finalizer.enqueue(self._closing.popleft())
            if pause():
                break
        if self._closing:
            self._wake()

    def preview(self, models: Container[str], show: Show) -> None:
        """Show soon what open windows of these models hold so far; see preview.py."""
        builtin = self._scheduler.builtin
        for state in self._windows.values():
            if state.model[0] not in models or state.phase is not Phase.OPEN or state.outstanding.total():
                continue
            if any(agent.partials for agent in state.agents.values()):
                partials = {name: list(agent.partials.get("", [])) for name, agent in state.agents.items()}
                contexts = self._contexts.for_closing(state, state.agents, builtin)
                emits, sizes = state.contract.policy.emits, self._budget.sizes(state)
                parts = WindowParts(partials, contexts, {}, emits, state.memory)
                self._scheduler.start(builtin, preview(state, parts, sizes, show))
            self._batcher.flush(state)

    def shutdown(self) -> None:
        """End the executors."""
        self._scheduler.shutdown()

    def forget(self, model: ModelKey) -> None:
        """Drop everything that is kept of a model that is gone."""
        self.memory.forget(model)
        self.references.forget(model)
        self.contracts.forget(model[0])
        self._scheduler.forget(model)
        self._policies.forget(model[0])

    # --- checkpoints, and what a start brings back -------------------------------------------------------------------

    def checkpoint(self, model: ModelKey, window: OpenWindow, done: Done) -> bool:
        """Pass `done` the bytes of all that a window's rows have come to; return False when it cannot be packed now.

        `done` gets None when the checkpoint could not be made, and is not called when the window closes first.
        """
        state = self._windows.get((model, window.start, window.number))
        if state is None or state.phase is not Phase.OPEN:
            return False
        self._checkpointer.begin(state, done)
        return True

    def restore(self, model: ModelKey, window: OpenWindow, checkpoint: Checkpoint) -> None:
        """Add what a checkpoint holds to a window; metrics that did not see all of its rows give nothing for it."""
        state = self._state(model, window)
        state.failed.update(checkpoint.failed)
        for name, kept in checkpoint.agents.items():
            self._batcher.restore(state, name, kept)
