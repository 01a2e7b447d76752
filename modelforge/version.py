"""The product's version, and the version of the HTTP contract that it answers with."""

VERSION = "0.1.0"
API_VERSION = "v2"
