# shellcheck shell=bash
# What build_and_deploy.sh and teardown.sh share: words, command lines, arguments. Sourced, never run.

NAME=stable-diffusion-webui
PREFIX=${PREFIX:-atelier}
DRY_RUN=no
export AWS_PAGER=""
exec 3>&1

say() { printf '%s\n' "$*"; }

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

# The command line as somebody could type it.
shown() {
  local line
  printf -v line '%q ' "$@"
  printf '+ %s\n' "${line% }"
}

# run COMMAND...: run it; in a dry run print it instead.
run() {
  if [ "$DRY_RUN" = yes ]; then
    shown "$@" >&3
  else
    "$@"
  fi
}

# ask PLACEHOLDER COMMAND...: what it prints; in a dry run the placeholder, and the command is shown.
ask() {
  local placeholder=$1
  shift
  if [ "$DRY_RUN" = yes ]; then
    shown "$@" >&3
    printf '%s\n' "$placeholder"
  else
    "$@"
  fi
}

# here COMMAND...: whether it succeeds, without a word of its own; in a dry run it is shown, and nothing is here.
here() {
  if [ "$DRY_RUN" = yes ]; then
    shown "$@" >&3
    return 1
  fi
  "$@" >/dev/null 2>&1
}

# refuse USAGE PROBLEM: for arguments that cannot be meant.
refuse() {
  printf '%s\n\n%s\n' "$2" "$1" >&2
  exit 2
}

# The three arguments both scripts take: sets BUCKET, FOLDER (without slashes around it), REGION, and AWS, the
# AWS CLI in that region.
# shellcheck disable=SC2034  # what is set here is read by the scripts
read_arguments() {
  local usage=$1
  shift
  [ $# -eq 3 ] || refuse "$usage" "Give exactly three arguments; these are $#."
  [[ $1 =~ ^s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/.*)?$ ]] ||
    refuse "$usage" "The first argument is where templates and code go, s3://BUCKET or s3://BUCKET/FOLDER, not '$1'."
  BUCKET=${BASH_REMATCH[1]}
  FOLDER=$(tr -s / <<<"${BASH_REMATCH[2]}")
  FOLDER=${FOLDER#/}
  FOLDER=${FOLDER%/}
  [[ $FOLDER =~ ^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?$ ]] ||
    refuse "$usage" "The folder '$FOLDER' has characters beyond letters, digits, dots, dashes and slashes."
  FOLDER=${FOLDER:-atelier}
  [[ $2 =~ ^[a-z]{2,4}(-[a-z]+)+-[0-9]+$ ]] ||
    refuse "$usage" "The second argument is a region of AWS, for example eu-west-1, not '$2'."
  REGION=$2
  AWS=(aws --region "$REGION")
  [ "$3" = "$NAME" ] || refuse "$usage" "The third argument names what is deployed: $NAME is all there is, not '$3'."
  [[ $PREFIX =~ ^[a-z](-?[a-z0-9]){0,23}$ && ${#PREFIX} -le 24 ]] ||
    refuse "$usage" "PREFIX is '$PREFIX'; it begins with a letter and has at most 24 of a-z, 0-9 and single dashes."
}

# Whether and as whom AWS can be called: sets ACCOUNT, or adds to PROBLEMS.
# shellcheck disable=SC2034
check_identity() {
  local said
  if said=$(ask 000000000000 "${AWS[@]}" sts get-caller-identity --query Account --output text 2>"$WORK/error"); then
    ACCOUNT=$said
    return 0
  fi
  PROBLEMS+=("AWS knows no credentials for $REGION. Run 'aws configure' or 'aws sso login'. It said: $(last_words)")
  return 1
}

# The last line a command that failed has left.
last_words() { grep -v '^$' "$WORK/error" | tail -n 1; }

# The stack's status, NONE where there is no stack.
stack_status() {
  local said
  if said=$(ask NONE "${AWS[@]}" cloudformation describe-stacks --stack-name "$PREFIX" \
    --query 'Stacks[0].StackStatus' --output text 2>"$WORK/error"); then
    printf '%s\n' "$said"
  elif grep -q 'does not exist' "$WORK/error"; then
    printf 'NONE\n'
  else
    die "The stack $PREFIX cannot be looked at: $(last_words)"
  fi
}

# What went wrong in the stack, the newest first.
failures() {
  "${AWS[@]}" cloudformation describe-stack-events --stack-name "$PREFIX" --max-items 100 \
    --query "StackEvents[?ends_with(ResourceStatus, '_FAILED')].[LogicalResourceId,ResourceStatusReason]" \
    --output text 2>/dev/null | head -n 8 | sed 's/^/  /'
}

# tell_problems HEADLINE: print what stands in PROBLEMS, all at once, and end.
tell_problems() {
  [ ${#PROBLEMS[@]} -gt 0 ] || return 0
  printf '%s\n' "$1" >&2
  printf -- '- %s\n' "${PROBLEMS[@]}" >&2
  exit 1
}
