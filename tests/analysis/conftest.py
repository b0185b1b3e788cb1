import pytest


@pytest.fixture
def results():
    """What a results.json holds, made up: three iterations, five levels."""
    rows = []
    for method, gain in (("vanilla", 0.02), ("critique", 0.04)):
        for iteration in range(4):
            accuracy = 0.45 + gain * iteration
            rows.append(
                {
                    "method": method,
                    "iteration": iteration,
                    "accuracy": accuracy,
                    "ci95": [accuracy - 0.03, accuracy + 0.03],
                    "accuracy_by_level": {
                        str(level): accuracy + 0.48 - 0.16 * level for level in range(1, 6)
                    },
                    "train_size": 2000 + 800 * iteration,
                    "train_share_by_level": {
                        str(level): 0.2 + (0.05 - gain * iteration / 4) * (3 - level) / 2
                        for level in range(1, 6)
                    },
                    "generated_tokens": 1_234_567 * iteration,
                }
            )
    return {
        "command": "python -m experiments.self_improve --flagfile=quickstart.flags --seed=7",
        "seed": 7,
        "settings": {
            "iterations": 3,
            "samples": 5,
            "learning_rate": 2e-3,
            "difficulty_aware": True,
        },
        "wall_seconds": 287.4,
        "peak_rss_bytes": 2_254_857_830,
        "test_problems": 1000,
        "iterations": rows,
        "comparison": {
            "critique_minus_vanilla": 0.06,
            "ci95": [0.031, 0.088],
            "paired_by": "problem",
        },
        "critic": {
            "discriminability": 0.794,
            "helpfulness": 0.312,
            "unparsable": 4,
            "n": 1000,
            "c2c": 431,
            "c2i": 19,
            "i2c": 172,
            "i2i": 378,
        },
        "critique_data": {"flawed_solutions": 5120, "annotated": 4400, "kept_by_filter": 3100},
        "transcripts": [
            {
                "question": "A shop has 48 apples. It sells half of them, then gets 7 more. "
                "How many apples are there now?",
                "answer": "31",
                "response": "It sells 48/2=<<48/2=24>>24 apples.\n\n"
                "Then it has 24+7=<<24+7=32>>32 apples.\nThe answer is 32.",
                "critique": "Step 1: It sells 48/2=24 apples.\nExplanation: 48/2=24.\n"
                "Correctness: Correct\nStep 2: Then it has 24+7=32 apples.\n"
                "Explanation: 24+7=31, not 32.\nCorrectness: Wrong\nFinal answer: Wrong",
                "refinement": "It sells 48/2=<<48/2=24>>24 apples.\n"
                "Then it has 24+7=<<24+7=31>>31 apples.\nThe answer is 31.",
                "first_error": 1,
                "response_verdict": "wrong",
                "refinement_verdict": "correct",
            }
        ],
    }
