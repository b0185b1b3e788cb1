import pytest


@pytest.mark.parametrize("weights", ["a,b", "1,2,3", "0,0,0,0,0", "1,1,1,1,-1", "1,1,1,1,nan"])
def test_level_weights_are_five_numbers(weights, run, tmp_path):
    done = run("pretrain_tiny", f"--run_dir={tmp_path}", f"--level_weights={weights}")
    assert done.returncode == 1
    assert f"error: --level_weights={weights}: give five numbers from 0" in done.stderr
    assert not list(tmp_path.iterdir())
