# Sourced by the scripts beside it: runs a command as a named stage, with its time, and stops at the first failure.
# The output of a stage is shown as it comes: a stage that hangs is seen hanging.

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi

stage() {
    stage_name=$1
    shift
    stage_began=$(date +%s)
    printf '%s\n' "${bold}==> $stage_name${plain}"
    "$@" || {
        status=$?
        printf '%s\n' "${bold}==> $stage_name: FAILED (exit $status)${plain}: run it alone with: $*" >&2
        exit "$status"
    }
    printf '%s\n' "==> $stage_name: ok, $(($(date +%s) - stage_began)) s"
}
