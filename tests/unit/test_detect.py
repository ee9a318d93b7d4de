"""What is found in Django projects of many layouts, none of them imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from deploykit.detect import Detected, check_python, detect, find_root
from deploykit.errors import DeploykitError

EXAMPLES = Path(__file__).parents[2] / "examples"


class Memory:
    """A source tree of texts."""

    digest = "0"
    label = "folder"
    folder: Path | None = None

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    @property
    def paths(self) -> Sequence[str]:
        return sorted(self.files)

    def read(self, path: str) -> bytes:
        return self.files[path].encode()


def manage(settings: str) -> str:
    return f'import os\ndef main():\n    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")\n'


def found(settings: str = "", more: dict[str, str] | None = None, **given: str) -> Detected:
    files = {
        "manage.py": manage("site1.settings"),
        "site1/__init__.py": "",
        "site1/settings.py": settings,
        "site1/wsgi.py": "",
    }
    return detect(Memory({**files, **(more or {})}), **given)


def test_the_smallest_project() -> None:
    assert found() == Detected(
        root="", settings="site1.settings", wsgi="site1.wsgi:application", by_hand="site1.settings"
    )


def test_no_manage_py_says_where_it_looked() -> None:
    with pytest.raises(DeploykitError, match=r"no manage.py among its 2 files \(README, src/\)") as caught:
        detect(Memory({"README": "", "src/main.py": ""}), name="blog")
    assert caught.value.where == "[apps.blog] folder" and "source" in caught.value.todo
    with pytest.raises(DeploykitError, match="among its 0 files"):
        detect(Memory({}))


def test_several_manage_py() -> None:
    text = manage("x.settings")
    files = {
        "tests/manage.py": text,
        "a/b/manage.py": text,
        "web/manage.py": text,
        "node_modules/x/manage.py": text,
        "manage.py": "# Flask",
    }
    assert find_root(Memory(files)) == ("web", ("a/b", "", "tests", "node_modules/x"))


def test_settings_that_were_named_need_no_manage_py_and_choose_among_several() -> None:
    text = manage("x.settings")
    assert find_root(Memory({}), settings="pretix.settings") == ("", ())
    assert detect(Memory({"README": ""}), settings="pretix.settings") == Detected(root="", settings="pretix.settings")
    # A test's manage.py has nothing to do with the settings of an installed package, the project's own has.
    assert find_root(Memory({"tests/manage.py": text}), settings="pretix.settings") == ("", ("tests",))
    assert find_root(Memory({"site/manage.py": text}), settings="pretix.settings") == ("site", ())
    files = {"a/manage.py": text, "tests/manage.py": text, "tests/x/__init__.py": "", "tests/x/settings.py": ""}
    assert find_root(Memory(files), settings="x.settings") == ("tests", ("a",))


def test_a_manage_py_that_hands_over_to_a_module_of_the_projects_own() -> None:
    inner = (
        'if "test" in sys.argv:\n    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")\n'
        'else:\n    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "squad.settings")\n'
    )
    package = {"squad/__init__.py": "", "squad/settings.py": "", "squad/wsgi.py": ""}
    outer = "from squad.manage import main\nmain()\n"
    seen = detect(Memory({**package, "manage.py": outer, "squad/manage.py": inner}))
    assert (seen.root, seen.others, seen.settings) == ("", ("squad",), "squad.settings")
    runs = 'import runpy\nrunpy.run_module("squad", run_name="__main__")\n'
    seen = detect(Memory({**package, "manage.py": runs, "squad/__main__.py": inner}))
    assert (seen.root, seen.settings, seen.wsgi) == ("", "squad.settings", "squad.wsgi:application")


def test_a_wsgi_py_will_do_where_there_is_no_manage_py() -> None:
    wsgi = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "graphite.settings")\n'
    files = {"webapp/graphite/wsgi.py": wsgi, "webapp/graphite/settings.py": "", "webapp/graphite/__init__.py": ""}
    seen = detect(Memory({**files, "setup.py": "", "tests/x/wsgi.py": wsgi, "a/wsgi.py": wsgi}))
    assert (seen.root, seen.settings, seen.wsgi) == ("webapp", "graphite.settings", "graphite.wsgi:application")


def test_settings_that_build_on_those_in_the_source_are_read_there() -> None:
    """A configuration file's module imports the project's own: what that says counts, too."""
    package = {"site1/__init__.py": "", "site1/settings.py": 'MEDIA_URL = "/uploads/"\n', "site1/wsgi.py": ""}
    seen = detect(Memory({**package, "manage.py": manage("site1.settings")}), settings="live")
    assert (seen.settings, seen.media_url, seen.wsgi) == ("live", "/uploads/", "site1.wsgi:application")


def test_settings_for_production_are_preferred() -> None:
    wagtail = {
        "manage.py": manage("mysite.settings.dev"),
        "mysite/__init__.py": "",
        "mysite/settings/__init__.py": "",
        "mysite/settings/base.py": 'STATIC_URL = "/static/"\nMEDIA_ROOT = "x"\nMEDIA_URL = "/media/"\n'
        'ROOT_URLCONF = "mysite.urls"\n'
        'WSGI_APPLICATION = "mysite.wsgi.application"\n'
        'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3"}}\n',
        "mysite/settings/dev.py": "from .base import *\nimport os\nos.environ['DEV_ONLY']\n",
        "mysite/settings/production.py": "from .base import *\n"
        "try:\n    from .local import *\nexcept ImportError:\n    pass\n",
        "mysite/wsgi.py": manage("mysite.settings.dev"),
        "requirements.txt": "Django>=5\nwagtail\n",
    }
    one = detect(Memory(wagtail))
    assert one.settings == "mysite.settings.production" and one.wsgi == "mysite.wsgi:application"
    assert (one.static_url, one.media_url, one.media, one.database, dict(one.env)) == (
        "/static/",
        "/media/",
        True,
        "sqlite",
        {},
    )
    served = {
        **wagtail,
        "mysite/wsgi.py": manage("mysite.settings.live"),
        "mysite/settings/live.py": "from .base import *",
    }
    assert detect(Memory(served)).settings == "mysite.settings.live"
    assert detect(Memory(wagtail), settings="mysite.settings.dev").env == {"DEV_ONLY": True}


def test_settings_that_are_not_where_manage_py_says() -> None:
    assert found(more={"manage.py": manage("gone.settings")}).settings == "site1.settings"
    assert detect(Memory({"manage.py": manage("gone.settings")})).settings == ""


@pytest.mark.parametrize(
    ("line", "name", "needed"),
    [
        ('os.environ["A"]', "A", True),
        ('environ["A"]', "A", True),
        ('os.environ.get("A")', "A", False),
        ('os.environ.get("A", "x")', "A", False),
        ('os.getenv("A")', "A", False),
        ('getenv("A")', "A", False),
        ('env("A")', "A", True),
        ('env("A", default=1)', "A", False),
        ('env.bool("A")', "A", True),
        ('env.list("A", default=[])', "A", False),
        ('config("A")', "A", True),
        ('config("A", default=1, cast=int)', "A", False),
        ('config("A", 1)', "A", False),
        ("env.db()", "DATABASE_URL", True),
        ("env.cache()", "CACHE_URL", True),
        ('env.db("A")', "A", True),
        ("dj_database_url.config(default='x')", "DATABASE_URL", False),
        ("dj_database_url.config(env='A')", "A", True),
        ("environ.Env(A=(bool, False))", "A", False),
        ('env_bool("A", default=True)', "A", False),
        ('os.environ["A"] if "A" in os.environ else 1', "A", False),
    ],
)
def test_variables_that_the_settings_read(line: str, name: str, needed: bool) -> None:
    assert found(f"import os\nX = {line}\n").env == {name: needed}


def test_what_reads_no_variable() -> None:
    assert (
        found('import os\nos.environ["A"] = "1"\nd.get("A")\nos.environ.setdefault("B", "1")\nprint("C")\n').env == {}
    )


@pytest.mark.parametrize(
    ("files", "listed"),
    [
        ({"requirements.txt": "", "pyproject.toml": "[project]\ndependencies=[]"}, ("requirements.txt",)),
        ({"requirements/base.txt": "", "requirements/production.txt": ""}, ("requirements/production.txt",)),
        ({"requirements/base.txt": "", "requirements/prod.txt": ""}, ("requirements/prod.txt",)),
        ({"pyproject.toml": "[project]\ndependencies=[]"}, ("pyproject.toml",)),
        ({"pyproject.toml": "[tool.ruff]"}, ()),
        ({"pyproject.toml": "[project]\ndependencies=[]", "uv.lock": "", "requirements.txt": ""}, ("uv.lock",)),
        ({"uv.lock": ""}, ()),
    ],
)
def test_requirements(files: dict[str, str], listed: tuple[str, ...]) -> None:
    assert found(more=files).requirements == listed


@pytest.mark.parametrize(
    ("settings", "requirements", "expected"),
    [
        ("", "psycopg[binary]==3.2\n", {"database": "postgres"}),
        ("", "psycopg2-binary\n", {"database": "postgres"}),
        ('X = "django.db.backends.sqlite3"', "django\n", {"database": "sqlite"}),
        ('X = "django.db.backends.mysql"', "mysqlclient\n", {"database": "mysql"}),
        ('X = "django.db.backends.postgresql"', "", {"database": "postgres"}),
        ("import os\nos.environ['DATABASE_URL']", "", {"database_url": True}),
        ("", "django-redis\n", {"redis": True}),
        ("", "Celery[redis]\n", {"redis": True}),
        ("", "redis-om-nothing\n", {"redis": False}),
        ('X = "django.core.cache.backends.redis.RedisCache"', "", {"redis": True}),
        ('import os\nX = os.environ.get("REDIS_URL")', "", {"redis": True}),
        ("", "whitenoise~=6.0\n", {"whitenoise": True}),
        ('X = ["whitenoise.middleware.WhiteNoiseMiddleware"]', "", {"whitenoise": True}),
        ('STATIC_URL = "static/"\nSTATIC_ROOT = BASE / "x"', "", {"static_url": "static/", "static_root": True}),
        ("STATIC_URL = CDN + 'x'", "", {"static_url": None, "static_root": False}),
        ("MEDIA_ROOT: str = 'x'", "", {"media": True, "media_url": None}),
    ],
)
def test_hints(settings: str, requirements: str, expected: dict[str, object]) -> None:
    one = found(settings, {"requirements.txt": requirements})
    assert {name: getattr(one, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("routes", "path"),
    [
        ('path("healthz", x)', "/healthz"),
        ('path("healthz/", x)', "/healthz/"),
        ('path("ht/", include("health_check.urls"))', ""),
        ('re_path(r"^up/?$", x)', "/up"),
        ('path("api/", include("api.urls"))', "/api/health/"),
        ('path("", include(("api.urls", "api")))', "/health/"),
        ('path("health-insurance/", x)', ""),
        ('path("<slug:up>/", x)', ""),
        ('path("admin/", admin.site.urls), path("-/healthz", x)', "/-/healthz"),
    ],
)
def test_health(routes: str, path: str) -> None:
    more = {"site1/urls.py": f"urlpatterns = [{routes}]", "api/urls.py": 'urlpatterns = [path("health/", x)]'}
    assert found(more=more).health == path


def test_asgi_and_wsgi() -> None:
    one = found(
        'ASGI_APPLICATION = "site1.routing.app"\nWSGI_APPLICATION = "gone.wsgi.application"', {"site1/routing.py": ""}
    )
    assert (one.asgi, one.wsgi) == ("site1.routing:app", "site1.wsgi:application")


def test_code_that_does_not_parse_or_is_hostile() -> None:
    one = found("print 'two'\n", {"site1/wsgi.py": "\0", "site1/urls.py": "(" * 50})
    assert one.settings == "site1.settings" and one.env == {}
    loop = found("from .settings import *\nfrom site1.settings import *\nfrom ..... import *\n")
    assert loop.settings == "site1.settings"


def test_nothing_is_run(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    found(f"open({str(target)!r}, 'w')\n", {"manage.py": f"open({str(target)!r}, 'w')\n" + manage("site1.settings")})
    assert not target.exists()


def test_check_python() -> None:
    check_python(">=3.10", "3.11.2", "x")
    check_python("", "3.11.2", "x")
    with pytest.raises(DeploykitError, match=r"wants Python >=3.12, and this is 3.11.2") as caught:
        check_python(">=3.12", "3.11.2", "[apps.blog]")
    assert caught.value.todo == 'set python = "3.12" in its table'


@pytest.mark.parametrize("name", ["memories", "links", "reader"])
def test_the_examples(name: str) -> None:
    folder = EXAMPLES / name
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    texts = {path: file.read_text() for path, file in files.items() if path.endswith((".py", ".txt", ".toml"))}
    one = detect(Memory(texts))
    assert one.settings and one.wsgi and one.requirements and one.static_root
    assert one.database == ("sqlite" if name == "reader" else "postgres")
    assert one.redis is (name != "reader") and one.media is (name == "memories")  # of memories it is the broker
    assert not [variable for variable, needed in one.env.items() if needed]
