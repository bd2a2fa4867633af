"""The number of rows that the sample of an agent's window may hold, so that all samples stay within bounds."""

from __future__ import annotations

from zmon_collector.compute import sample
from zmon_collector.compute.sample import Sample
from zmon_collector.compute.window_state import AgentPartial, WindowState


class SampleBudget:
    """Shares ``limits.sample_bytes`` equally among the agents of all windows that are being computed.

    A sample can be cut to fewer rows at any time and still be a uniform sample that merges exactly with others
    (sample.py). So the share may shrink while windows are open: an agent's samples are cut when they are merged next,
    at the latest when there are twice as many rows as allowed.

    Parameters
    ----------
    nbytes : int
        Bound over all samples.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._agents = 0
        self.smallest = 0  # rows to which the bound lowered a sample last; 0: never

    def enlist(self) -> None:
        """Count one more agent of a window."""
        self._agents += 1

    def release(self, state: WindowState) -> None:
        """Stop counting the agents of a window that is done."""
        self._agents -= len(state.agents)

    @property
    def _share(self) -> int:
        """Bytes of an agent's sample; half, because while samples are merged, both the old and the new are held."""
        return self._nbytes // (2 * max(1, self._agents))

    def size(self, state: WindowState, agent: AgentPartial) -> int:
        """Return the rows that the agent's sample of this window may hold."""
        wanted = state.contract.policy.sample_rows
        affordable = max(1, self._share // agent.row_bytes)
        if affordable < wanted:
            self.smallest = affordable
            return affordable
        return wanted

    def is_over(self, agent: AgentPartial) -> bool:
        """Return whether an agent's samples take more than they may until they are merged."""
        return agent.sample_bytes > 2 * self._share

    def cut(self, drawn: Sample) -> Sample:
        """Return a sample within an agent's share: `size` does not know of the names behind codes."""
        while drawn.nbytes > self._share and len(drawn.keys) > 1:
            self.smallest = len(drawn.keys) // 2
            drawn = sample.merge([drawn], self.smallest)
        return drawn

    def sizes(self, state: WindowState) -> dict[str, int]:
        """Return the rows that each agent's sample of this window may hold."""
        return {name: self.size(state, agent) for name, agent in state.agents.items()}
