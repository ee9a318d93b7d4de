"""PostgreSQL's extensions that are no part of its server's package: which package has them, and what else they need.

Sources: https://packages.debian.org and https://packages.ubuntu.com; not every system has each of them.
"""

from __future__ import annotations

_POSTGIS = "postgresql-{major}-postgis-3"

#: The package of an extension, by the extension's name. All others are tried as they are: the server's package brings
#: fifty of them (pg_trgm, unaccent, citext, hstore, btree_gin, ...).
PACKAGES: dict[str, str] = {
    "postgis": _POSTGIS,
    "postgis_raster": _POSTGIS,
    "postgis_sfcgal": _POSTGIS,
    "postgis_tiger_geocoder": _POSTGIS,
    "postgis_topology": _POSTGIS,
    "address_standardizer": _POSTGIS,
    "pgrouting": "postgresql-{major}-pgrouting",
    "h3": "postgresql-{major}-h3",
    "vector": "postgresql-{major}-pgvector",
    "hll": "postgresql-{major}-hll",
    "hypopg": "postgresql-{major}-hypopg",
    "ip4r": "postgresql-{major}-ip4r",
    "pg_partman": "postgresql-{major}-partman",
    "pg_repack": "postgresql-{major}-repack",
    "pgaudit": "postgresql-{major}-pgaudit",
    "pgtap": "postgresql-{major}-pgtap",
    "rum": "postgresql-{major}-rum",
    "plperl": "postgresql-plperl-{major}",
    "plpython3u": "postgresql-plpython3-{major}",
}

#: Those that do nothing unless the server has loaded them at its start.
PRELOADED = frozenset({"pg_stat_statements", "pgaudit"})
