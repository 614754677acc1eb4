"""The services from which models read. A bundle names its service, so a changed schema gets a new version."""

from feast import FeatureService
from views import item_statistics, user_history, user_model_output

elcrec_v1 = FeatureService(
    name="elcrec_v1",
    features=[user_history[["item_ids", "event_times"]], user_model_output],
    tags={"version": "1"},
    description="The features of a user for a ranking: the history, and the champion's outputs.",
)
elcrec_items_v1 = FeatureService(
    name="elcrec_items_v1",
    features=[item_statistics],
    tags={"version": "1"},
    description="Popularity of items.",
)
