from vqdoctor.training.schedule import warm_up


def test_the_weight_rises_linearly_to_one():
    assert [warm_up(epoch, 10) for epoch in (0, 4, 9, 10, 99)] == [0.1, 0.5, 1.0, 1.0, 1.0]
    assert warm_up(0, 0) == 1.0
