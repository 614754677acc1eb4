"""One-line errors for exceptions of Feast, its registry and its stores."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from feast.errors import FeastError
from sqlalchemy.exc import SQLAlchemyError

from elcrec.adapters.redis_rows import redis_errors
from elcrec.errors import UserError
from elcrec.faults import explain
from elcrec.serving.ports import StoreUnavailable


@contextmanager
def feast_errors() -> Iterator[None]:
    """Turn exceptions of Feast, its registry and its stores into errors of one clear line."""
    try:
        with redis_errors():
            yield
    except FeastError as error:
        raise UserError(f"Feast: {error}", fix="push again") from error
    except SQLAlchemyError as error:
        cause = explain(error) or type(error).__name__
        what = f"the feature registry does not answer ({cause})"
        raise StoreUnavailable(what, fix="check FEAST_REGISTRY, or the store folder if it is not set") from error
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the online store does not answer ({error})", fix="try again") from error
