#!/usr/bin/env bash
# The one door: sets the suite up and runs it. See ./run_all.sh --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<TEXT
usage: ./run_all.sh [WORD] [OPTION ...]

  (nothing)   set up, run the quick suite, draw everything, print the summary,
              attack a sample of the certificates
  SUITE       the same with another suite: $(suites)
              after paper and paper_cpu follow the paper's other experiments, into out/SUITE/experiments
  test        set up and run the tests, on all cores (-n 0: in one process);
              options go to pytest
  setup       only set up
  --help      this text

Options go to 'python -m bench.compare' (its --help lists them), for example
  ./run_all.sh quick --jobs 2 --out out/mine
  ./run_all.sh mnist_cpu --data-dir DIR
  ./run_all.sh paper_cpu --data-dir DIR     (--data-dir, --seeds, --jobs, --device and --fresh only)

Setting up makes .venv (unless a virtual environment is active) and installs
the exact versions of constraints.txt. It happens once: later calls start at
once and need no network. Python 3.11 or newer is needed, nothing else. An
active environment that has another clone of the suite is left alone, unless
CERTBENCH_ADOPT=1 is set.
TEXT
}

suites() {
  local files=(bench/suites/*.toml) names
  names=("${files[@]##*/}")
  echo "${names[*]%.toml}"
}

fail() {
  echo "run_all.sh: $1" >&2
  exit 2
}

find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  fail "no Python >= 3.11 found: install one, or activate a virtual environment that has one"
}

set_up() {
  local venv=${VIRTUAL_ENV:-$PWD/.venv} stamp wanted
  if [ ! -x "$venv/bin/python" ]; then
    echo "Making $venv ..."
    "$(find_python)" -m venv "$venv"
  fi
  python=$venv/bin/python
  stamp=$venv/.certbench-stamp
  wanted=$(cat pyproject.toml constraints.txt <(pwd) | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  refuse_foreign_install "$venv"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "the active environment has Python < 3.11"
  echo "Installing the suite and its dependencies into $venv (a few minutes the first time) ..."
  "$python" -m pip install --quiet --constraint constraints.txt --editable '.[test]'
  # Their declared pins (torch < 1.13, an old requests) are stale; the suite adapts to what is installed.
  "$python" -m pip install --quiet --constraint constraints.txt --no-deps auto-LiRPA torchattacks
  echo "$wanted" >"$stamp"
}

# An environment can hold the suite of one clone only: that of another is not changed unawares.
refuse_foreign_install() {
  local installed
  installed=$("$python" - <<'CODE'
import json
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlparse

try:
    record = json.loads(distribution("certbench").read_text("direct_url.json") or "{}")
except PackageNotFoundError:
    record = {}
print(unquote(urlparse(record.get("url", "")).path))
CODE
  )
  if [ -z "$installed" ] || [ "$installed" -ef . ] || [ -n "${CERTBENCH_ADOPT:-}" ]; then return; fi
  fail "the environment $1 has the suite of $installed installed, and would be changed to that of $PWD: \
'deactivate' it (then .venv here is used), or set CERTBENCH_ADOPT=1 to change it"
}

# The suite, for the paper's the experiments into its folder, and attacks on a sample of the certificates.
# Options must be known to all that see them; a failed cell, experiment or certificate makes the exit code 1.
run_suite() {
  local suite=$1 out reduced=() code=0
  shift
  out=$(option_of --out "out/$suite" "$@")
  "$python" -m bench.compare --suite "$suite" "$@" || code=$?
  if [ "$code" -gt 1 ]; then exit "$code"; fi
  case " $* " in *" --list "* | *" --help "* | *" -h "*) exit "$code" ;; esac
  if [ "$suite" = paper_cpu ]; then reduced=(--reduced); fi
  case $suite in
    paper | paper_cpu)
      "$python" -m bench.experiments ${reduced[@]+"${reduced[@]}"} --run "$out" "$@" --out "$out/experiments" || code=1
      ;;
  esac
  attack "$out" "$(option_of --data-dir "" "$@")" || code=1
  exit "$code"
}

# Prints what an option is given as, --name VALUE or --name=VALUE, or a default.
option_of() {
  local name=$1 value=$2
  shift 2
  while [ $# -gt 0 ]; do
    case $1 in
      "$name") shift; value=${1:-} ;;
      "$name="*) value=${1#*=} ;;
    esac
    shift || true
  done
  echo "$value"
}

attack() {
  local data=()
  if [ -n "$2" ]; then data=(--data-dir "$2"); fi
  echo
  "$python" -m bench.falsify "$1" ${data[@]+"${data[@]}"} \
    --limit 10 --restarts 1 --steps 20 --library 10 --bracket 10
}

word=${1:-quick}
case $word in
  --help | -h) usage; exit 0 ;;
  -*) word=quick ;;
  *) [ $# -gt 0 ] && shift ;;
esac

case $word in
  setup) set_up ;;
  # A worker takes whole files, so that what their tests share is made once. Later options win.
  test) set_up; exec "$python" -m pytest -n logical --maxprocesses 8 --dist loadscope --no-loadscope-reorder "$@" ;;
  *)
    case " $(suites) " in
      *" $word "*) ;;
      *) fail "unknown word '$word': choose from test, setup, $(suites | sed 's/ /, /g')" ;;
    esac
    set_up
    run_suite "$word" "$@"
    ;;
esac
