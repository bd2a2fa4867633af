"""Places of models and agents: taken by what has to be counted, never by a greeting alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from dataclasses import replace

from zmon._wire.frames import Topic
from zmon.errors import WireError
from zmon_collector.ingest.admission import Admission, share_text
from zmon_collector.ingest.arrival import Arrival
from zmon_collector.ingest.model_state import ModelState
from zmon_collector.ingest.session import Session
from zmon_collector.ingest.sessions import SessionRegistry
from zmon_collector.telemetry import Telemetry
from zmon_collector.windows.window import OTHER, ModelKey, Now

log = logging.getLogger("zmon.collector")


class ModelAdmission:
    """Decides which models and agents get a place.

    Parameters
    ----------
    models : mapping
        The states of all models; shared with the ingestor.
    admission : Admission
    sessions : SessionRegistry
    telemetry : Telemetry
    add_model : callable
        Creates the state of a model, which an identity owns.
    """

    def __init__(
        self,
        models: MutableMapping[ModelKey, ModelState],
        admission: Admission,
        sessions: SessionRegistry,
        telemetry: Telemetry,
        add_model: Callable[[ModelKey, str], ModelState],
    ) -> None:
        self._models, self._admission, self._sessions = models, admission, sessions
        self._telemetry, self._add_model = telemetry, add_model

    def admit(self, topic: Topic, identity: str, now: Now) -> tuple[ModelState | None, str]:
        """Return the state of a topic's model and the name under which its agent is counted.

        Both take a place if they have none. Without a place for the model there is no state.
        """
        key = (topic.model, topic.version)
        model = self._models.get(key)
        if model is None:
            if not self._admission.models.has_room(identity):
                self._note_refusal(identity, now)
                return None, topic.agent_id
            model = self._add_model(key, identity)
            self._introduce_others(model, now)
        elif identity and not model.owner:  # an earlier release did not journal who it was
            self._admission.models.release(model.owner)
            self._admission.models.hold(identity)
            model.owner = identity
        return model, self.admit_agent(model, topic.agent_id, identity, now)

    def admit_version(self, session: Session, version: str, now: Now) -> tuple[ModelState, str]:
        """Return the same of another version of a stream's model; WireError if there is no place for it."""
        model, agent = self.admit(replace(session.topic, version=version), session.identity, now)
        if model is None:
            raise WireError("models", share_text(self._admission.models, "models", session.identity))
        model.touch(now)
        return model, agent

    def admit_agent(self, model: ModelState, agent: str, identity: str, now: Now) -> str:
        """Return the name under which an agent is counted: its own, or `OTHER` if it finds no place."""
        if model.windows.knows(agent):
            return agent
        if model.places.take(identity):
            model.agents[agent] = identity
            model.windows.admit(agent, now)
            return agent
        self._telemetry.count("agents_over_limit")
        if not model.over_limit:
            model.over_limit = True
            log.error("model %r has more than limits.agents = %d agents, or than the share of %s: %r and further ones "
                      "count for the rollup only; does every request get a new agent_id?",
                      model.key[0], model.places.capacity, identity or "their sender", agent)  # fmt: skip
        if model.places.held(identity) < model.places.used:  # others hold the rest
            self._admission.refuse(model.places, "agents", identity, now.mono, model.key[0])
        return OTHER

    def greet(self, session: Session, model: ModelState, now: Now, *, is_hello: bool) -> None:
        """Have windows wait for a stream that greets: if rows of it are to come, or if its agent is back."""
        announces = session.position.row < session.position.issued
        is_new = is_hello or not session.introduced
        if (is_new and announces) or (is_hello and model.windows.knows(session.topic.agent_id)):
            self._introduce(session, model, now)

    def note_rows(self, arrival: Arrival, *, labels: bool) -> None:
        """Have windows wait for a publisher whose greeting announced nothing, once its first rows come."""
        session, model = arrival.session, arrival.model
        is_there = session.peer is not None and session.ends_at is None and not session.left
        if model is not None and is_there and not (session.introduced or labels):
            model.windows.connect(arrival.agent, session.key, arrival.now)
        session.introduced = True

    def _introduce(self, session: Session, model: ModelState, now: Now) -> None:
        session.introduced = True
        agent = self.admit_agent(model, session.topic.agent_id, session.identity, now)
        model.windows.connect(agent, session.key, now)

    def _introduce_others(self, model: ModelState, now: Now) -> None:
        """Have the windows of a new model wait for the rows that others have announced before the first ones came."""
        for session in self._sessions.of_model(model.key):
            if session.position.row < session.position.issued and session.ends_at is None:
                self._introduce(session, model, now)

    def _note_refusal(self, identity: str, now: Now) -> None:
        self._telemetry.count("admission_refused", "models")
        text, is_due = self._admission.refuse(self._admission.models, "models", identity, now.mono)
        if is_due and self._telemetry.may_log(now.mono):
            log.warning("%s: rows of further models and versions of it are rejected", text)
