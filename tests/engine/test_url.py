"""A server's URL: one for all ways to state it, or a reason."""

import pytest

from kinetics_serve.engine.url import server_url


@pytest.mark.parametrize(
    ("stated", "url"),
    [
        ("http://gpu-1:8001", "http://gpu-1:8001"),
        ("http://gpu-1:8001/", "http://gpu-1:8001"),
        ("http://gpu-1:8001/v1", "http://gpu-1:8001"),
        ("http://GPU-1:8001/v1/", "http://gpu-1:8001"),
        ("HTTP://gpu-1:80", "http://gpu-1"),
        ("https://gpu-1:443//", "https://gpu-1"),
        ("https://gpu-1:80", "https://gpu-1:80"),
        ("https://gateway/Team-A/v1", "https://gateway/Team-A"),
        ("http://[::1]:8001", "http://[::1]:8001"),
        ("http://my_engine", "http://my_engine"),
    ],
)
def test_all_ways_to_state_a_server_are_one(stated: str, url: str) -> None:
    assert server_url(stated) == url
    assert server_url(url) == url


@pytest.mark.parametrize(
    "stated",
    [
        *[
            "",
            "gpu-1",
            "gpu-1:8001",
            "http://",
            "http://:8001",
            "http:///v1",
            "http://a b",
            "http://a\tb",
            "http://x\n",
        ],
        *["http://x:99999", "http://x:0", "http://x:port", "http://[::1", "ftp://x", "unix:///run/vllm.sock"],
    ],
)
def test_what_is_no_url_of_a_server_is_refused_with_one_that_is(stated: str) -> None:
    with pytest.raises(ValueError, match="expected a URL such as http://localhost:8001; given: "):
        server_url(stated)


@pytest.mark.parametrize(
    "stated", ["http://me:s3cret@x", "http://me:s/3cret@x", "http://s3cret@x:1/v1", "http://u:s3?cret@x"]
)
def test_a_password_is_refused_without_a_word_of_it(stated: str) -> None:
    with pytest.raises(ValueError, match="stated with --upstream-api-key; given") as refused:
        server_url(stated, "--upstream-api-key")
    assert "3" not in str(refused.value)


@pytest.mark.parametrize("stated", ["http://x?key=s3cret", "http://x/v1#s3cret"])
def test_a_query_is_refused_without_a_word_of_it(stated: str) -> None:
    with pytest.raises(ValueError, match="ends with its path") as refused:
        server_url(stated)
    assert "s3cret" not in str(refused.value)
