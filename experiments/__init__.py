"""One absl program per experiment: python -m experiments.NAME --flagfile=..."""

import sys

from jaxcritique.extras import require_train

try:
    require_train("This program")
except ImportError as error:  # Here, since the modules' own imports would leave a traceback.
    sys.exit(f"error: {error}")
