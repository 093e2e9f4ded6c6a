#!/bin/sh
# Install edgeclf-device on a Raspberry Pi (Raspberry Pi OS bookworm or trixie, 64-bit), on a Jetson (JetPack 5 or 6) or
# on another 64-bit Debian or Ubuntu: a virtual environment, the systemd service (installed, not started), the doctor.
# Run it again at any time: what is there stays or is brought up to date; /etc/edgeclf/classify.env is never overwritten.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
prefix=/opt/edgeclf extras='' python=python3 wheelhouse='' service=yes dry=no
need_mib=800
root=${EDGECLF_ROOT:-} # another root folder to look at and to write in: for images of boards, and for tests

usage() {
    cat <<END
Usage: sudo sh install.sh [OPTION]...
  --extra NAMES      what to install, by commas: litert, onnxruntime, camera, web, mqtt
                     (default: litert,camera,web, or what the wheelhouse was made for)
  --wheelhouse DIR   install from the folder that 'make wheelhouse' made, without internet
                     (default: the folder of this script, if it is such a folder)
  --prefix DIR       where to (default: $prefix)
  --python PATH      which Python, 3.10 to 3.13 (default: python3)
  --no-service       only the environment; needs no root if DIR is yours
  --dry-run          look at everything, change nothing, and say what would be done
END
}

say() { printf 'edgeclf: %s\n' "$*"; }
refuse() {
    printf 'edgeclf: %s\n' "$*" >&2
    exit 1
}
run() {
    if [ "$dry" = yes ]; then
        printf 'would run: %s\n' "$*"
    else
        "$@"
    fi
}

while [ $# -gt 0 ]; do
    case $1 in
    --extra | --wheelhouse | --prefix | --python)
        [ $# -ge 2 ] || refuse "$1 needs a value; see --help."
        case $1 in
        --extra) extras=$2 ;;
        --wheelhouse) wheelhouse=$2 ;;
        --prefix) prefix=$2 ;;
        --python) python=$2 ;;
        esac
        shift 2
        ;;
    --no-service) service=no && shift ;;
    --dry-run) dry=yes && shift ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && refuse "there is no option $1." ;;
    esac
done

# --- What is this machine?

field() { # field NAME: of os-release
    sed -n "s/^$1=//p" "$root/etc/os-release" 2>/dev/null | tr -d '"'
}
model=$({ tr -d '\0' <"$root/proc/device-tree/model"; } 2>/dev/null || true)
codename=$(field VERSION_CODENAME)
jetson=$(sed -n 's/^# R\([0-9]*\) .*/\1/p' "$root/etc/nv_tegra_release" 2>/dev/null || true)
system=$(field PRETTY_NAME)
[ -z "$jetson" ] || system="$system, Jetson Linux $jetson"

machine=$(uname -m)
case $machine in
aarch64 | x86_64) ;;
*) refuse "the engines need a 64-bit system, and this one is $machine; install Raspberry Pi OS (64-bit)." ;;
esac
# A 64-bit kernel under a 32-bit system is Raspberry Pi OS (32-bit).
[ "$(getconf LONG_BIT)" = 64 ] ||
    refuse "the kernel is 64-bit, but the system is 32-bit; install Raspberry Pi OS (64-bit)."
if [ -n "$jetson" ] && [ "$jetson" -lt 35 ]; then
    refuse "Jetson Linux $jetson (JetPack 4) has a C library too old for the engines; install JetPack 5 or 6."
fi

command -v "$python" >/dev/null || refuse "there is no $python; name one with --python, or: sudo apt install python3"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
3.10 | 3.11 | 3.12 | 3.13) ;;
*)
    refuse "Python 3.10 to 3.13 is needed, but $python is $version." \
        "Install one beside it (uv python install 3.11) and name it with --python."
    ;;
esac

say "$(printf '%s' "${model:-$machine}"), ${system:-unknown system}, Python $version"
case ${jetson:-$codename} in
bookworm | trixie | 35 | 36) ;;
*) say "note: this has not been tried on ${codename:-this system}; bookworm, trixie, JetPack 5 and 6 are meant." ;;
esac

# --- What is to be installed?

[ -n "$wheelhouse" ] || [ ! -f "$here/SHA256SUMS" ] || wheelhouse=$here
package=${here%/*}
if [ -n "$wheelhouse" ]; then
    [ -f "$wheelhouse/SHA256SUMS" ] || refuse "$wheelhouse has no SHA256SUMS; make it with 'make wheelhouse'."
    (cd "$wheelhouse" && sha256sum --check --quiet SHA256SUMS) || refuse "$wheelhouse is damaged; copy it again."
    read -r made_for made_python made_extras <"$wheelhouse/MADE-FOR"
    [ "$made_for $made_python" = "$machine $version" ] ||
        refuse "$wheelhouse is for $made_for and Python $made_python, but here is $machine and Python $version;" \
            "make another: make wheelhouse ARCH=$machine PY=$version"
    extras=${extras:-$made_extras}
    package=edgeclf-device
    from="--no-index --find-links $wheelhouse"
else
    [ -f "$package/pyproject.toml" ] || package=edgeclf-device
    from=''
fi
extras=${extras:-litert,camera,web}

shared='--system-site-packages' # picamera2 and JetPack's OpenCV come from the system
case $("$python" -c 'import sys; print(sys.prefix)') in
/usr) ;;
*) shared='' ;;
esac
if [ -n "$jetson" ] && [ -n "$shared" ] && "$python" -c 'import cv2' 2>/dev/null; then
    # pip's OpenCV would hide the system's, which alone reads the ribbon cameras (GStreamer).
    extras=$(printf ',%s,' "$extras" | sed 's/,camera,/,/; s/^,//; s/,$//')
    say "OpenCV: JetPack's own is used, for csi:"
fi

# --- Can it be done?

there=$prefix
while [ ! -d "$there" ]; do there=$(dirname "$there"); done
free_mib=$(($(df -Pk "$there" | awk 'NR == 2 { print $4 }') / 1024))
[ "$free_mib" -ge $need_mib ] ||
    refuse "$need_mib MiB are needed in $there, but $free_mib are free; free some or name another place with --prefix."
if [ -d "$prefix" ] && [ ! -f "$prefix/pyvenv.cfg" ] && [ -n "$(ls -A "$prefix")" ]; then
    refuse "$prefix holds something else; name a new folder with --prefix."
fi
if [ $dry = no ] && [ $service = yes ] && [ "$(id -u)" != 0 ]; then
    refuse "the service needs root: sudo sh $0 (or --no-service --prefix ~/edgeclf)"
fi

missing=''
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing=python3-venv
case $model in
Raspberry\ Pi*)
    [ -z "$shared" ] || "$python" -c 'import picamera2' 2>/dev/null || missing="$missing python3-picamera2"
    ;;
esac
case "$wheelhouse:$missing" in
*:) ;;
:*)
    # shellcheck disable=SC2086 # several names
    run apt-get install --yes --no-install-recommends $missing
    ;;
*:*python3-venv*) refuse "without internet, install python3-venv first: copy its .deb here and: sudo dpkg -i FILE" ;;
*) say "note: python3-picamera2 is not installed, so ribbon cameras can't be used; it needs internet: apt install" ;;
esac

# --- Do it.

if [ ! -x "$prefix/bin/python" ]; then
    # shellcheck disable=SC2086 # nothing or one option
    run "$python" -m venv $shared "$prefix"
elif [ "$("$prefix/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' || true)" != "$version" ]; then
    say "the environment in $prefix is of another Python; it is made anew"
    # shellcheck disable=SC2086 # nothing or one option
    run "$python" -m venv --clear $shared "$prefix"
fi
constraints=$(mktemp)
unit=$(mktemp)
trap 'rm -f "$constraints" "$unit"' EXIT
case $version$shared in
# The system's NumPy is 1 there, and picamera2 and JetPack's OpenCV are built for it: under NumPy 2 they do not load.
3.10--* | 3.11--*) printf 'numpy<2\nopencv-python-headless<4.12\n' >"$constraints" ;;
esac
# shellcheck disable=SC2086 # several options
run "$prefix/bin/python" -m pip install --disable-pip-version-check --no-cache-dir --upgrade $from \
    --constraint "$constraints" "${package}[$extras]"

if [ $service = yes ]; then
    units=$root/etc/systemd/system
    run mkdir -p "$units/edgeclf-classify.service.d" "$root/etc/edgeclf" "$root/usr/local/bin"
    sed "s|/opt/edgeclf/bin|$prefix/bin|" "$here/edgeclf-classify.service" >"$unit"
    run install -m 644 "$unit" "$units/edgeclf-classify.service"
    [ -z "$jetson" ] || run install -m 644 "$here/jetson.conf" "$units/edgeclf-classify.service.d/jetson.conf"
    systemd=$(systemctl --version 2>/dev/null | awk 'NR == 1 { print $2 + 0 }')
    [ "${systemd:-0}" -lt 254 ] ||
        run install -m 644 "$here/backoff.conf" "$units/edgeclf-classify.service.d/backoff.conf"
    [ -e "$root/etc/edgeclf/classify.env" ] || run install -m 600 "$here/classify.env" "$root/etc/edgeclf/classify.env"
    run ln -sf "$prefix/bin/edgeclf-device" "$root/usr/local/bin/edgeclf-device"
    [ -n "$root" ] || run systemctl daemon-reload
fi

run "$prefix/bin/edgeclf-device" doctor || say "the doctor found problems, see above; their remedies stand beside them."
[ $service = no ] || cat <<END
edgeclf: next:
  sudo cp MODEL.tflite /etc/edgeclf/model.tflite && edgeclf-device verify /etc/edgeclf/model.tflite
  sudo nano /etc/edgeclf/classify.env               # which model, which camera
  sudo systemctl enable --now edgeclf-classify      # now and at every start
  systemctl status edgeclf-classify; journalctl -fu edgeclf-classify
END
