from engines.control import Stop


def test_whoever_listens_hears_it_once() -> None:
    stop, heard = Stop(), list[str]()
    with stop.heard_by(lambda: heard.append("first")):
        stop.set()
        stop.set()
    assert heard == ["first"]


def test_whoever_comes_late_hears_it_at_once_and_who_left_does_not() -> None:
    stop, heard = Stop(), list[str]()
    with stop.heard_by(lambda: heard.append("left")):
        pass
    stop.set()
    with stop.heard_by(lambda: heard.append("late")):
        pass
    assert heard == ["late"]
