"""These tests need a Docker Engine and ten minutes, so `make test` leaves them out: `make containers` runs them."""

import os

collect_ignore = [] if os.environ.get("CONTAINERS") else ["test_compose_file.py"]
