"""The number of rows that the sample of an agent's window may hold, so that all samples stay within bounds."""

from __future__ import annotations

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

    def size(self, state: WindowState, agent: AgentPartial) -> int:
        """Return the rows that the agent's sample of this window may hold."""
        wanted = state.contract.policy.sample_rows
        # Twice: while samples are merged, both the old and the new are held.
        affordable = max(1, self._nbytes // (2 * max(1, self._agents) * agent.row_bytes))
        if affordable < wanted:
            self.smallest = affordable
            return affordable
        return wanted

    def sizes(self, state: WindowState) -> dict[str, int]:
        """Return the rows that each agent's sample of this window may hold."""
        return {name: self.size(state, agent) for name, agent in state.agents.items()}
