"""The logger of tests that look at a part of the library by itself."""

import logging

LOGGER = logging.getLogger("test")
