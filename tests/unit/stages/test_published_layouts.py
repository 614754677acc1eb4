"""Each published layout on a made-up extract: with its name alone it is read, and docs/data.md has its row."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from elcrec.config import CsvConfig, FetchConfig, LocalFile, ValidateConfig
from elcrec.errors import UserError
from elcrec.layouts import LAYOUTS
from elcrec.stages.fetch import fetch
from elcrec.stages.validate import validate
from tests.support.engines import ENGINE

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 1, tzinfo=UTC)
SMALL = {"min_rows": 1, "min_users": 1, "min_items": 1, "min_interactions_per_user": 0.1}

EXTRACTS = {
    "alibaba-mobile": "user_id,item_id,behavior_type,user_geohash,item_category,time\n98,i7,1,,5027,2014-12-06 02\n",
    "amazon-ratings-2014": "A39,i7,5.0,1355443200\n",
    "amazon-ratings-2018": "i7,A39,5.0,1355443200\n",
    "amazon-ratings-2023": "user_id,parent_asin,rating,timestamp\nAG,i7,5.0,1355443200000\n",
    "amazon-reviews": '{"reviewerID": "A2", "asin": "i7", "unixReviewTime": 1355443200}',
    "amazon-reviews-2023": '{"rating": 5.0, "images": [], "asin": "B", "parent_asin": "i7", "user_id": "AG", '
    '"timestamp": 1355443200000}',
    "diginetica": "sessionId;userId;itemId;timeframe;eventdate\n1;NA;i7;526309;2016-05-09\n",
    "dressipi": "session_id,item_id,date\n3,i7,2020-12-18 21:25:00.373\n",
    "foursquare": "u\ti7\t4bf5\tAl's \"Bar\t40.7\t-74.0\t-240\tTue Apr 03 18:00:09 +0000 2012\n",
    "goodreads": '{"user_id": "8842", "book_id": "i7", "date_added": "Sun Jul 30 07:44:10 -0700 2017"}',
    "gowalla": "0\t2010-10-19T23:55:27Z\t30.2\t-97.7\ti7\n",
    "hm": "t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-20,000058a12d,i7,0.05,2\n",
    "kuairand": "user_id,video_id,date,hourmin,time_ms,is_click\n0,i7,20220421,700,1650495639213,1\n",
    "kuairec": "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
    "0,i7,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.27\n",
    "lastfm-1k": 'user_000001\t2009-05-04T23:08:57Z\tf1b1\ti7\t\t"Heroes (Live\n',
    "lastfm-2k": "userID\tartistID\ttagID\ttimestamp\n2\ti7\t13\t1238536800000\n",
    "movielens": "userId,movieId,rating,timestamp\n1,i7,3.5,1112486027\n",
    "movielens-100k": "196\ti7\t3\t881250949\n",
    "movielens-1m": "1::i7::5::978300760\n",
    "rees46": "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
    "2019-10-01 00:00:00 UTC,view,i7,2103,,shiseido,35.79,541312140,72d7\n",
    "retailrocket": "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,i7,\n",
    "taobao": "1,i7,2520377,pv,1511544070\n",
    "tmall": "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n328862,i7,833,2882,2661,0829,0\n",
    "twitch": "1,33842865744,i7,154,156\n",
    "yelp": '{"review_id": "K", "user_id": "mh", "business_id": "i7", "stars": 3.0, "date": "2018-07-07 22:09:11"}',
    "yoochoose": "1,2014-04-07T10:51:09.277Z,i7,0\n",
}


def read(folder: Path, layout: str, **settings: object) -> list[dict[str, object]]:
    (folder / "log").write_text(EXTRACTS[layout], encoding="utf-8")
    file = LocalFile(path=str(folder / "log"), layout=layout)
    fetch(FetchConfig(dataset="file", file=file), folder / "raw")
    validate(ValidateConfig(**SMALL, **settings), folder / "raw", folder / "out", engine=ENGINE, now=NOW)
    return pq.read_table(folder / "out" / "interactions.parquet").to_pylist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_log_is_read_by_its_name_alone(tmp_path: Path, layout: str) -> None:
    (row,) = read(tmp_path, layout)
    assert row["item_id"] == "i7"
    assert row["user_id"] in EXTRACTS[layout]
    moment = row["timestamp"]
    assert isinstance(moment, datetime)
    assert (moment.year > 1996) == (LAYOUTS[layout].kind == "real")


def test_every_layout_has_its_row_in_the_documentation() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name, layout in LAYOUTS.items():
        assert f"| `{name}` | {layout.files} |" in page


def test_configured_values_take_precedence_over_a_layout(tmp_path: Path) -> None:
    (row,) = read(
        tmp_path,
        "movielens-1m",
        csv=CsvConfig(names=("item", "x", "y", "z"), delimiter="::"),
        time="order",
        time_column="z",
        user_column="x",
    )
    assert (row["user_id"], row["item_id"]) == ("i7", "1")


def test_an_unknown_layout_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"movielens-1m"):
        LocalFile(layout="movielens-2b")


def test_times_in_a_configured_form_are_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("user_id,item_id,timestamp\nu,i,31/12/2024 23:59\nu,j,12/31/2024 23:59\n")
    file = LocalFile(path=str(tmp_path / "log"), format="csv")
    fetch(FetchConfig(dataset="file", file=file), tmp_path / "raw")
    config = ValidateConfig(time_format="%d/%m/%Y %H:%M", max_quarantine_share=0.5, **SMALL)
    assert validate(config, tmp_path / "raw", tmp_path / "out", engine=ENGINE, now=NOW)["quarantined"] == 1
    (row,) = pq.read_table(tmp_path / "out" / "interactions.parquet").to_pylist()
    assert row["timestamp"] == datetime(2024, 12, 31, 23, 59, tzinfo=UTC)
    with pytest.raises(UserError):
        validate(ValidateConfig(**SMALL), tmp_path / "raw", tmp_path / "again", engine=ENGINE, now=NOW)
