"""What models read. A bundle names its service, so a changed schema gets a new version beside the old one."""

from feast import FeatureService
from views import item_statistics, user_history, user_model_output

elcrec_v1 = FeatureService(
    name="elcrec_v1",
    features=[user_history[["item_ids", "event_times"]], user_model_output],
    tags={"version": "1"},
    description="What one user needs for a ranking: the history, and the champion's view of the user.",
)
elcrec_items_v1 = FeatureService(
    name="elcrec_items_v1",
    features=[item_statistics],
    tags={"version": "1"},
    description="Popularity of items.",
)
