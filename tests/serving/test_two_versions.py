"""A server process with two versions, and a rollback, while clients send requests."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from elcrec.serving.arms import arm_of
from tests.support.serving import NAME, ROOT, Client, Installation, Reply, Server, eventually, serving

pytestmark = pytest.mark.slow

USERS = [f"user-{number}" for number in range(24)]
VERSION = {"champion": "1", "challenger": "2"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A champion, version 1, and a challenger, version 2."""
    made = Installation.make(tmp_path_factory.mktemp("two-versions"))
    made.push_another(seed=1, alias="challenger")
    return made


def elcrec(*arguments: str, store: Path) -> str:
    command = [sys.executable, "-m", "elcrec", *arguments, "--store", str(store), "--params", str(ROOT / "params.yaml")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def asking(server: Server) -> Iterator[list[Reply]]:
    """Ask for one user after the other, from two connections; yields the answers, which grow."""
    replies, over = list[Reply](), threading.Event()

    def ask(client: Client) -> None:
        with client:
            while not over.is_set():
                for user in USERS:
                    replies.append(client.post("/recommend", {"user_id": user, "k": 3}))

    threads = [threading.Thread(target=ask, args=(server.client(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield replies
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_arms_survive_a_restart_and_end_with_a_promotion_and_a_rollback_without_a_failed_request(
    installation: Installation,
) -> None:
    arms = {user: arm_of(user, test=f"{NAME} 2", share=0.5) for user in USERS}

    def answered(reply: Reply) -> tuple[str, str]:
        return reply.json["arm"], reply.json["model"]["version"]

    def require_arms(server: Server) -> None:
        with server.client() as client:
            found = {user: answered(client.post("/recommend", {"user_id": user, "k": 3})) for user in USERS}
        assert found == {user: (arm, VERSION[arm]) for user, arm in arms.items()}
        assert server.metric('elcrec_answers_total{arm="challenger"}') == list(arms.values()).count("challenger")

    with serving(installation, "challenger.mode=split", "poll=0.1") as server:
        require_arms(server)
    with serving(installation, "challenger.mode=split", "poll=0.1") as server:
        require_arms(server)
        with asking(server) as replies:
            installation.registry.set_champion(NAME, "2")
            eventually(
                lambda: bool(replies) and replies[-1].json["model"]["version"] == "2" and "arm" not in replies[-1].json
            )
            said = elcrec("rollback", store=installation.folder)
            eventually(lambda: replies[-1].json["model"]["version"] == "1")
            later = len(replies)
            eventually(lambda: len(replies) > later + 2 * len(USERS))

    assert said.split() == ["champion", "1", "rejected", "2"]
    assert {reply.status for reply in replies} == {200}
    assert {reply.json["model"]["version"] for reply in replies[later + 2 :]} == {"1"}
