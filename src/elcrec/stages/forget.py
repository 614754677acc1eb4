"""Forget a user: erase them from the store, the work folders, and every log that is read from now on."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from elcrec.artifacts import FORGOTTEN_FILE, require_folder
from elcrec.config import MAX_ID_LENGTH, CsvConfig
from elcrec.data.erasure import erase_user
from elcrec.data.forgotten import Forgotten
from elcrec.data.text import AS_FOUND
from elcrec.errors import UserError
from elcrec.serving.exposure_files import erase_exposures
from elcrec.serving.ports import FeatureStore

logger = logging.getLogger(__name__)


def forget(
    user_id: str,
    store: Path,
    folders: Sequence[Path],
    *,
    columns: tuple[str, ...],
    features: FeatureStore,
    exposures: Path | None = None,
    user_key: str | None = None,
    text: CsvConfig = AS_FOUND,
) -> dict[str, int]:
    """Erase a user; return how much was found in the store, and in how many files of the folders.

    The list of forgotten users is written first: once the user is on it, no validate and no push brings back their
    earlier events. Running it again is harmless, and completes an interrupted run.

    Args:
        user_id: the raw id.
        store: the store folder, which keeps the list.
        folders: work folders of the stages.
        columns: possible names of the column of users in a raw log.
        features: the feature store.
        exposures: the folder of the servers' exposures, if there is one.
        user_key: the user's key in exposures and in outputs made from them; `None` if there is no salt.
        text: the form of raw logs in CSV.

    Raises:
        UserError: a folder is missing, or a file cannot be rewritten.
        StoreUnavailable: the online store or the event log does not answer, or another process reads them too long.
    """
    if not user_id.strip() or len(user_id) > MAX_ID_LENGTH:
        raise UserError("not a user's id", fix=f"give an id of 1 to {MAX_ID_LENGTH} characters")
    for folder in folders:
        require_folder(folder, fix="name an existing --workdir")
    Forgotten.load(store / FORGOTTEN_FILE).adding(user_id, datetime.now(UTC)).write(store / FORGOTTEN_FILE)
    # Files first: the feature store may refuse, as before the first push.
    changed = [path for folder in folders for path in erase_user(folder, user_id, columns, text)]
    if user_key is not None:
        changed += [path for folder in folders for path in erase_user(folder, user_key, ("user_key",), text)]
        changed += [] if exposures is None else erase_exposures(exposures, user_key)
    for path in changed:
        logger.info("rewritten: %s", path)
    found = dict(features.forget(user_id))
    return {**found, "files": len(changed)}
