"""The known layouts of published logs, by name."""

from typing import Literal, NamedTuple


class KnownLayout(NamedTuple):
    """The layout of a published log.

    Attributes:
        files: the data set, and the name of the file.
        format: its format, as in `fetch.file.format`.
        user, item, time: its columns, or the keys of its JSON.
        names: all its columns, if it has no header.
        delimiter: its delimiter, if it is not found automatically.
        quote: the character that encloses a field; empty if quotes are plain characters.
        unit: unit of its times, if they are numbers.
        kind: `order` if its times give only an order.
    """

    files: str
    format: Literal["csv", "jsonl"]
    user: str
    item: str
    time: str
    names: tuple[str, ...] = ()
    delimiter: str | None = None
    quote: str = '"'
    unit: Literal["s", "ms"] = "s"
    kind: Literal["real", "order"] = "real"


_RATINGS = ("user", "item", "rating", "timestamp")
_CHECK_INS = ("user", "time", "latitude", "longitude", "place")
_PLAYS = ("user", "time", "artist_id", "artist", "track_id", "track")
_VENUES = ("user", "venue", "category_id", "category", "latitude", "longitude", "offset", "time")

LAYOUTS: dict[str, KnownLayout] = {
    "alibaba-mobile": KnownLayout(
        "Tianchi mobile recommendation, tianchi_mobile_recommend_train_user.csv", "csv", "user_id", "item_id", "time"
    ),
    "amazon-ratings-2014": KnownLayout(
        "Amazon ratings of 2014, ratings_*.csv", "csv", "user", "item", "timestamp", _RATINGS
    ),
    "amazon-ratings-2018": KnownLayout(
        "Amazon ratings of 2018, item first",
        "csv",
        "user",
        "item",
        "timestamp",
        ("item", "user", "rating", "timestamp"),
    ),
    "amazon-ratings-2023": KnownLayout(
        "Amazon ratings of 2023, *.csv", "csv", "user_id", "parent_asin", "timestamp", unit="ms"
    ),
    "amazon-reviews": KnownLayout(
        "Amazon reviews of 2014 and 2018, reviews_*.json", "jsonl", "reviewerID", "asin", "unixReviewTime"
    ),
    "amazon-reviews-2023": KnownLayout(
        "Amazon reviews of 2023, *.jsonl", "jsonl", "user_id", "parent_asin", "timestamp", unit="ms"
    ),
    "diginetica": KnownLayout(
        "CIKM Cup 2016, train-item-views.csv; a session is a user",
        *("csv", "sessionId", "itemId", "timeframe"),
        kind="order",
    ),
    "dressipi": KnownLayout(
        "RecSys Challenge 2022, train_sessions.csv; a session is a user", "csv", "session_id", "item_id", "date"
    ),
    "foursquare": KnownLayout(
        "Foursquare check-ins, dataset_TSMC2014_*.txt", "csv", "user", "venue", "time", _VENUES, "\t", ""
    ),
    "goodreads": KnownLayout(
        "UCSD Book Graph, goodreads_interactions_*.json", "jsonl", "user_id", "book_id", "date_added"
    ),
    "gowalla": KnownLayout(
        "SNAP check-ins of Gowalla and Brightkite, *_totalCheckins.txt",
        *("csv", "user", "place", "time", _CHECK_INS, "\t", ""),
    ),
    "hm": KnownLayout("H&M purchases, transactions_train.csv", "csv", "customer_id", "article_id", "t_dat"),
    "kuairand": KnownLayout("KuaiRand, log_*.csv", "csv", "user_id", "video_id", "time_ms", unit="ms"),
    "kuairec": KnownLayout("KuaiRec, big_matrix.csv and small_matrix.csv", "csv", "user_id", "video_id", "timestamp"),
    "lastfm-1k": KnownLayout(
        "Last.fm 1K, userid-timestamp-artid-artname-traid-traname.tsv; artists are the items",
        *("csv", "user", "artist", "time", _PLAYS, "\t", ""),
    ),
    "lastfm-2k": KnownLayout(
        "HetRec Last.fm, user_taggedartists-timestamps.dat", "csv", "userID", "artistID", "timestamp", unit="ms"
    ),
    "movielens": KnownLayout(
        "MovieLens 20M, 25M, 32M and latest, ratings.csv", "csv", "userId", "movieId", "timestamp"
    ),
    "movielens-100k": KnownLayout("MovieLens 100K, u.data", "csv", "user", "item", "timestamp", _RATINGS, "\t"),
    "movielens-1m": KnownLayout(
        "MovieLens 1M and 10M and MovieTweetings, ratings.dat", "csv", "user", "item", "timestamp", _RATINGS, "::", ""
    ),
    "rees46": KnownLayout(
        "REES46 multi-category store, 2019-Oct.csv and others", "csv", "user_id", "product_id", "event_time"
    ),
    "retailrocket": KnownLayout("Retailrocket, events.csv", "csv", "visitorid", "itemid", "timestamp", unit="ms"),
    "taobao": KnownLayout(
        "Taobao, UserBehavior.csv",
        "csv",
        "user",
        "item",
        "timestamp",
        ("user", "item", "category", "kind", "timestamp"),
    ),
    "tmall": KnownLayout(
        "IJCAI-15 Tmall, user_log_format1.csv; its times are month and day",
        *("csv", "user_id", "item_id", "time_stamp"),
        kind="order",
    ),
    "twitch": KnownLayout(
        "Twitch, 100k_a.csv; streamers are the items",
        *("csv", "user", "streamer", "start", ("user", "stream", "streamer", "start", "stop")),
        kind="order",
    ),
    "yelp": KnownLayout("Yelp, yelp_academic_dataset_review.json", "jsonl", "user_id", "business_id", "date"),
    "yoochoose": KnownLayout(
        "RecSys Challenge 2015, yoochoose-clicks.dat; a session is a user",
        *("csv", "session", "item", "time", ("session", "time", "item", "category")),
    ),
}
