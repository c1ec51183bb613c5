#!/usr/bin/env bash
# Builds the images, uploads templates and code, creates or updates the studio's stack, and says where it is.
# It may be run again at any time: what is there already is not made again.
set -euo pipefail

USAGE='Usage: deployment/build_and_deploy.sh [--dry-run] S3URL AWS-REGION stable-diffusion-webui

  S3URL       where templates and code go: s3://BUCKET or s3://BUCKET/FOLDER, in the same region
  --dry-run   print every command line and run none

Variables:
  PREFIX      what every name begins with, and the name of the stack (atelier)
  PARAMETERS  parameters of cloudformation/main.yaml as NAME=VALUE, separated by spaces,
              for example "DomainName=studio.example.com CertificateArn=arn:aws:acm:..."
  BUILD_ARGS  arguments for every image as NAME=VALUE, separated by spaces
  INSTANCE    instance whose quota is looked at (ml.g4dn.xlarge)'

[ "${BASH_VERSINFO[0]}" -ge 4 ] || {
  echo "This needs bash 4 or newer; this is $BASH_VERSION. On macOS: brew install bash." >&2
  exit 1
}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deployment/shell.sh
source deployment/shell.sh

IMAGES=(portal webui inference training tasks)
declare -A PARAMETER_OF=([portal]=PortalImage [webui]=WebUIImage [inference]=InferenceImage [tasks]=TasksImage)
CODE=(atelier portal webui workers extensions cloudformation deployment models
  pyproject.toml constraints.txt constraints-cuda.txt README.md LICENSE Makefile)
# The only form of an image that SageMaker takes; an index, or OCI's own, it refuses.
DOCKERS_FORM=application/vnd.docker.distribution.manifest.v2+json
FRONT=com.amazonaws.global.cloudfront.origin-facing
PROBLEMS=()
STAGES=()
declare -A GIVEN=() PUSHED=()
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

if command -v sha256sum >/dev/null; then HASH=(sha256sum); else HASH=(shasum -a 256); fi

# stage WORDS: what follows is timed under this name.
stage() {
  end_stage
  STAGE=$1
  BEGAN=$SECONDS
  say "== $1"
}

end_stage() {
  if [ -n "${STAGE:-}" ]; then STAGES+=("$((SECONDS - BEGAN)) $STAGE"); fi
  STAGE=
}

read_options() {
  local each
  for each in ${PARAMETERS:-}; do
    [[ $each =~ ^([A-Za-z0-9]+)=(.*)$ ]] || refuse "$USAGE" "PARAMETERS holds '$each', which is no NAME=VALUE."
    grep -q "^  ${BASH_REMATCH[1]}:" <(sed -n '/^Parameters:/,/^Rules:/p' cloudformation/main.yaml) ||
      refuse "$USAGE" "cloudformation/main.yaml has no parameter ${BASH_REMATCH[1]}."
    GIVEN[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
  done
}

# --- Prerequisites: everything that is missing is said at once.

check() {
  local tool
  for tool in aws docker zip; do
    command -v "$tool" >/dev/null || [ "$DRY_RUN" = yes ] ||
      PROBLEMS+=("The command $tool is missing. Install it, and see that it is on the PATH.")
  done
  if command -v docker >/dev/null || [ "$DRY_RUN" = yes ]; then
    ask 0 docker version --format '{{.Server.Version}}' >/dev/null 2>"$WORK/error" ||
      PROBLEMS+=("Docker does not answer. Start it, and see that you may use it. It said: $(last_words)")
    ask 0 docker buildx version >/dev/null 2>"$WORK/error" ||
      PROBLEMS+=("Docker has no Buildx, which builds the images. Install its plugin (docker-buildx). It said: $(last_words)")
  fi
  if command -v aws >/dev/null || [ "$DRY_RUN" = yes ]; then check_account; fi
  tell_problems "The studio cannot be deployed yet:"
}

check_account() {
  local place
  check_identity || return 0
  REGISTRY=$ACCOUNT.dkr.ecr.$REGION.$SUFFIX
  ask eu "${AWS[@]}" ec2 describe-availability-zones --query 'AvailabilityZones[0].ZoneName' --output text \
    >/dev/null 2>"$WORK/error" ||
    PROBLEMS+=("The region $REGION cannot be used by this account. It said: $(last_words)")
  if place=$(ask "$REGION" "${AWS[@]}" s3api get-bucket-location --bucket "$BUCKET" \
    --query LocationConstraint --output text 2>"$WORK/error"); then
    case $place in None | null) place=us-east-1 ;; EU) place=eu-west-1 ;; esac
    [ "$place" = "$REGION" ] ||
      PROBLEMS+=("The bucket $BUCKET is in $place. Templates and code must be in $REGION: give a bucket there.")
  else
    PROBLEMS+=("The bucket $BUCKET is not there, or not yours: $(last_words) Make it: aws s3 mb s3://$BUCKET --region $REGION")
  fi
  check_front
  check_quota
}

# TLS: a certificate and a name, or CloudFront, which is admitted by its list of addresses.
check_front() {
  local name=${GIVEN[DomainName]:-} certificate=${GIVEN[CertificateArn]:-} list
  if [ -n "$certificate$name" ]; then
    [ -n "$certificate" ] && [ -n "$name" ] ||
      PROBLEMS+=("DomainName and CertificateArn go together: give both in PARAMETERS, or neither.")
    # A stack that stood behind CloudFront must not keep its list beside a certificate.
    if [ -z "${GIVEN[CloudFrontPrefixList]:-}" ] && kept CloudFrontPrefixList; then GIVEN[CloudFrontPrefixList]=; fi
    return 0
  fi
  if kept CertificateArn; then return 0; fi
  if [[ $REGION == cn-* ]]; then
    PROBLEMS+=("In China nothing stands in front without a name of yours: give DomainName and CertificateArn in PARAMETERS.")
    return 0
  fi
  if [ -n "${GIVEN[CloudFrontPrefixList]:-}" ]; then return 0; fi
  list=$(ask pl-0 "${AWS[@]}" ec2 describe-managed-prefix-lists --filters "Name=prefix-list-name,Values=$FRONT" \
    --query 'PrefixLists[0].PrefixListId' --output text 2>"$WORK/error") || list=
  if [[ $list == pl-* ]]; then
    GIVEN[CloudFrontPrefixList]=$list
  else
    PROBLEMS+=("CloudFront's list of addresses ($FRONT) is not in $REGION: give DomainName and CertificateArn in PARAMETERS.")
  fi
}

# kept PARAMETER: whether the stack has a value for it already, which it keeps.
kept() {
  local value
  [ "$DRY_RUN" = no ] || return 1
  value=$("${AWS[@]}" cloudformation describe-stacks --stack-name "$PREFIX" \
    --query "Stacks[0].Parameters[?ParameterKey=='$1'].ParameterValue" --output text 2>/dev/null) || return 1
  [ -n "$value" ] && [ "$value" != None ]
}

# A new account may start no GPU: that is no obstacle to the studio, but to its first endpoint.
check_quota() {
  local instance=${INSTANCE:-ml.g4dn.xlarge} most
  most=$(ask 1 "${AWS[@]}" service-quotas list-service-quotas --service-code sagemaker \
    --query "Quotas[?QuotaName=='$instance for endpoint usage'].Value | [0]" --output text 2>/dev/null) || most=None
  case $most in
    0 | 0.0) say "Note: this account may start no $instance for endpoints. Ask for more under Service Quotas, SageMaker, '$instance for endpoint usage'; pictures are made once it is granted." ;;
    None | '') say "Note: how many $instance this account may start is not known." ;;
  esac
}

# --- What is built from, by its content.

# The files and folders that a Dockerfile copies in, one a line.
sources() {
  sed -e ':join' -e '/\\$/{N' -e 's/\\\n/ /' -e 'b join' -e '}' "$1" | awk '
    { for (i = 1; i <= NF; i++) if ($i ~ /^--mount=type=bind/ && match($i, /(source|src)=[^,]*/) && $i !~ /from=/)
        print substr($i, RSTART + index(substr($i, RSTART), "="), RLENGTH - index(substr($i, RSTART), "=")) }
    toupper($1) ~ /^(COPY|ADD)$/ && $0 !~ /--from=/ {
      n = 0; for (i = 2; i <= NF; i++) if ($i !~ /^--/) word[++n] = $i
      for (i = 1; i < n; i++) print word[i] }'
}

# content FILE-OR-FOLDER...: one digest of all that is below them.
content() {
  find "$@" \( -name .git -o -name .venv -o -name __pycache__ -o -path ./data \) -prune -o -type f -print0 |
    LC_ALL=C sort -z | xargs -0 "${HASH[@]}" | "${HASH[@]}" | cut -c1-16
}

# The tag of an image: it changes with the Dockerfile, what is copied in, and the arguments.
tag_of() {
  local file=deployment/images/$1.Dockerfile source paths=("deployment/images/$1.Dockerfile")
  [ ! -f .dockerignore ] || paths+=(.dockerignore)
  while IFS= read -r source; do
    while IFS= read -r source; do paths+=("$source"); done < <(compgen -G "$source" || true)
  done < <(sources "$file")
  printf 'src-%s\n' "$( (content "${paths[@]}" && printf '%s' "${BUILD_ARGS:-}") | "${HASH[@]}" | cut -c1-16)"
}

# --- Uploads: names hold the digest of the content, so that what is there is right.

upload() {
  local templates code
  templates=$(content cloudformation)
  ASSETS=$FOLDER/$templates
  GATEWAY=$FOLDER/lambda/gateway-$(content deployment/lambda/gateway.py).zip
  code=$FOLDER/code/atelier-$(content "${CODE[@]/#/./}").zip
  TEMPLATE=https://$BUCKET.s3.$REGION.$SUFFIX/$ASSETS/cloudformation/main.yaml
  if here "${AWS[@]}" s3api head-object --bucket "$BUCKET" --key "$ASSETS/cloudformation/main.yaml"; then
    say "The templates are there."
  else
    # main.yaml goes last: where it is, the others are.
    run "${AWS[@]}" s3 cp cloudformation "s3://$BUCKET/$ASSETS/cloudformation" --recursive \
      --exclude '*' --include '*.yaml' --exclude main.yaml --only-show-errors
    run "${AWS[@]}" s3 cp cloudformation/main.yaml "s3://$BUCKET/$ASSETS/cloudformation/main.yaml" --only-show-errors
  fi
  upload_zip "$GATEWAY" "The gateway" -j deployment/lambda/gateway.py
  upload_zip "$code" "The code" -r "${CODE[@]}" -x '*/__pycache__/*'
}

# upload_zip KEY WHAT ZIP-ARGUMENTS...
upload_zip() {
  local key=$1 what=$2 file=$WORK/upload.zip
  shift 2
  if here "${AWS[@]}" s3api head-object --bucket "$BUCKET" --key "$key"; then
    say "$what is there."
    return 0
  fi
  run zip -q -X "$file" "$@"
  run "${AWS[@]}" s3 cp "$file" "s3://$BUCKET/$key" --only-show-errors
  rm -f "$file"
}

# --- The stack.

# settle: bring the stack into a state from which it can go on, waiting where it is busy. Sets STATUS.
settle() {
  local looks
  for looks in {1..12}; do
    STATUS=$(stack_status)
    case $STATUS in
      NONE | CREATE_COMPLETE | UPDATE_COMPLETE | IMPORT_COMPLETE | IMPORT_ROLLBACK_COMPLETE) return 0 ;;
      UPDATE_ROLLBACK_COMPLETE)
        say "The last update of the stack failed and was taken back. What had failed:"
        failures
        return 0
        ;;
      CREATE_IN_PROGRESS) await create "The stack is being created" ;;
      UPDATE_ROLLBACK_*IN_PROGRESS) await rollback "The stack takes its last update back" ;;
      UPDATE_*IN_PROGRESS) await update "The stack is being updated" ;;
      DELETE_IN_PROGRESS) await delete "The stack is being deleted" ;;
      ROLLBACK_IN_PROGRESS) await create "The stack takes its creation back" ;;
      ROLLBACK_COMPLETE)
        say "The stack could not be created, and nothing of it is left. What had failed:"
        failures
        say "It is made anew."
        run "${AWS[@]}" cloudformation delete-stack --stack-name "$PREFIX"
        await delete "What is left of its name is removed"
        ;;
      UPDATE_ROLLBACK_FAILED)
        failures >&2
        die "The stack could not take its last update back. Mend what is named above, then run: aws --region $REGION cloudformation continue-update-rollback --stack-name $PREFIX"
        ;;
      *)
        failures >&2
        die "The stack is in the state $STATUS, from which it cannot go on. Remove it by deployment/teardown.sh, then run this again."
        ;;
    esac
  done
  die "The stack is still in the state $STATUS after $looks waits. Look at it in the console of CloudFormation."
}

# await WHAT WORDS: wait for the end of what is going on; whether it went well is looked at afterwards.
await() {
  say "$2; waiting for it (up to an hour)."
  run "${AWS[@]}" cloudformation wait "stack-$1-complete" --stack-name "$PREFIX" 2>/dev/null || true
}

# parameters: GIVEN and the names below ASSETS as options of the CLI; the stack keeps its other values.
# Sets OPTIONS.
parameters() {
  local key
  OPTIONS=("ParameterKey=AssetsBucket,ParameterValue=$BUCKET" "ParameterKey=AssetsPrefix,ParameterValue=$ASSETS"
    "ParameterKey=GatewayCodeKey,ParameterValue=$GATEWAY" "ParameterKey=Prefix,ParameterValue=$PREFIX")
  while IFS= read -r key; do
    [ -z "$key" ] || OPTIONS+=("ParameterKey=$key,ParameterValue=${GIVEN[$key]}")
  done < <(printf '%s\n' "${!GIVEN[@]}" | LC_ALL=C sort)
  [ "$1" = update ] || return 0
  while IFS= read -r key; do
    case " AssetsBucket AssetsPrefix GatewayCodeKey Prefix ${!GIVEN[*]} " in *" $key "*) continue ;; esac
    grep -q "^  $key:" cloudformation/main.yaml || continue
    OPTIONS+=("ParameterKey=$key,UsePreviousValue=true")
  done < <(ask '' "${AWS[@]}" cloudformation describe-stacks --stack-name "$PREFIX" \
    --query 'Stacks[0].Parameters[].ParameterKey' --output text | tr '\t' '\n' | grep -v '^$' | LC_ALL=C sort)
}

create() {
  parameters create
  run "${AWS[@]}" cloudformation create-stack --stack-name "$PREFIX" --template-url "$TEMPLATE" \
    --capabilities CAPABILITY_NAMED_IAM --parameters "${OPTIONS[@]}" \
    --tags "Key=Project,Value=$PREFIX" >/dev/null
}

update() {
  parameters update
  if run "${AWS[@]}" cloudformation update-stack --stack-name "$PREFIX" --template-url "$TEMPLATE" \
    --capabilities CAPABILITY_NAMED_IAM --parameters "${OPTIONS[@]}" \
    --tags "Key=Project,Value=$PREFIX" >/dev/null 2>"$WORK/error"; then
    await update "The stack is being updated"
  elif grep -q 'No updates are to be performed' "$WORK/error"; then
    say "The stack is as it should be."
  else
    die "The stack cannot be updated: $(last_words)"
  fi
}

# complete WHAT: end with a sentence unless the stack came to be as it was asked for.
complete() {
  [ "$DRY_RUN" = no ] || return 0
  STATUS=$(stack_status)
  case $STATUS in
    CREATE_COMPLETE | UPDATE_COMPLETE | UPDATE_COMPLETE_CLEANUP_IN_PROGRESS) return 0 ;;
  esac
  failures >&2
  die "The stack could not be $1 (it is $STATUS). What failed is named above. Mend it and run this again: what was done stays done."
}

# --- Images.

# in_registry NAME TAG: the digest that the registry has for it, and the form of its manifest; nothing where it
# has none.
in_registry() {
  local told
  told=$(ask '' "${AWS[@]}" ecr describe-images --repository-name "$PREFIX/$1" --image-ids "imageTag=$2" \
    --query 'imageDetails[0].[imageDigest,imageManifestMediaType]' --output text 2>/dev/null) || return 0
  [[ $told != sha256:* ]] || tr '\t' ' ' <<<"$told"
}

# pushed NAME TAG: the digest of what need not be pushed again; nothing where the registry has none, or in a form
# that SageMaker refuses.
pushed() {
  local digest form
  read -r digest form < <(in_registry "$1" "$2") || return 0
  [ "$form" != "$DOCKERS_FORM" ] || printf '%s\n' "$digest"
}

# Build what the registry has not, into the engine of this machine.
build() {
  local name tag each args=()
  for each in ${BUILD_ARGS:-}; do args+=(--build-arg "$each"); done
  for name in "${IMAGES[@]}"; do
    if [ ! -f "deployment/images/$name.Dockerfile" ]; then
      say "There is no deployment/images/$name.Dockerfile, so $name is left out."
      continue
    fi
    tag=$(tag_of "$name")
    TAG[$name]=$tag
    PUSHED[$name]=$(pushed "$name" "$tag")
    if [ -n "${PUSHED[$name]}" ]; then
      say "$name is in the registry already ($tag)."
    elif here docker image inspect "$REGISTRY/$PREFIX/$name:$tag"; then
      say "$name is built already ($tag)."
    else
      say "Building $name ($tag)."
      # Without attestations and in Docker's own form: SageMaker refuses an index of OCI's.
      run docker buildx build --provenance=false --sbom=false --output type=docker --platform linux/amd64 "${args[@]}" --tag "$REGISTRY/$PREFIX/$name:$tag" \
        --file "deployment/images/$name.Dockerfile" .
    fi
  done
}

push() {
  local name parameter logged_in=no
  for name in "${IMAGES[@]}"; do
    [ -n "${TAG[$name]:-}" ] || continue
    if [ -z "${PUSHED[$name]}" ]; then
      [ "$logged_in" = yes ] || log_in
      logged_in=yes
      run docker push --quiet "$REGISTRY/$PREFIX/$name:${TAG[$name]}" >/dev/null
      confirm_pushed "$name" "${TAG[$name]}"
      say "Pushed $name (${PUSHED[$name]})."
    fi
    parameter=${PARAMETER_OF[$name]:-}
    [ -z "$parameter" ] || GIVEN[$parameter]=$REGISTRY/$PREFIX/$name@${PUSHED[$name]}
  done
}

# confirm_pushed NAME TAG: sets PUSHED, or ends with a sentence.
confirm_pushed() {
  local digest='' form=''
  read -r digest form < <(in_registry "$1" "$2") || true
  [ "$DRY_RUN" = no ] || digest=sha256:DIGEST form=$DOCKERS_FORM
  [ -n "$digest" ] || die "The registry does not know $1:$2 after it was pushed. Run this again."
  [ "$form" = "$DOCKERS_FORM" ] || die "The registry holds $1:$2 as $form, which SageMaker refuses; it takes $DOCKERS_FORM. Remove what was built (docker image rm $REGISTRY/$PREFIX/$1:$2), see that Docker keeps images in its own form (without the containerd image store), and run this again."
  PUSHED[$1]=$digest
}

# The password goes from one command to the other and stands nowhere.
log_in() {
  if [ "$DRY_RUN" = yes ]; then
    shown aws --region "$REGION" ecr get-login-password
    shown docker login --username AWS --password-stdin "$REGISTRY"
    return 0
  fi
  "${AWS[@]}" ecr get-login-password | docker login --username AWS --password-stdin "$REGISTRY" >/dev/null ||
    die "Docker could not log in to $REGISTRY. See that your role may call ecr:GetAuthorizationToken."
}

# --- Where the studio is.

output() {
  ask "<$1>" "${AWS[@]}" cloudformation describe-stacks --stack-name "$PREFIX" \
    --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue" --output text
}

report() {
  local webui portal secret each file=$WORK/timings.json stamp
  webui=$(output WebUIUrl)
  portal=$(output WebPortalUrl)
  secret=$(output AdminSecretArn)
  end_stage
  stamp=$(date -u +%Y%m%dT%H%M%SZ)
  {
    printf '{"deployed": "%s", "seconds": {"all": %d' "$stamp" "$SECONDS"
    for each in "${STAGES[@]}"; do printf ', "%s": %d' "${each#* }" "${each%% *}"; done
    printf '}}\n'
  } >"$file"
  run "${AWS[@]}" s3 cp "$file" "s3://$BUCKET/$FOLDER/deployments/$stamp.json" --only-show-errors
  say ""
  say "WebUIUrl        $webui"
  say "WebPortalUrl    $portal"
  say "Admin's secret  $secret"
  say "Read the first password once, log in as admin, choose another one:"
  say "  aws --region $REGION secretsmanager get-secret-value --secret-id $secret --query SecretString --output text"
  say ""
  say "Seconds:"
  for each in "${STAGES[@]}"; do printf '%7d  %s\n' "${each%% *}" "${each#* }"; done
  printf '%7d  all\n' "$SECONDS"
}

main() {
  while [[ ${1:-} == --* ]]; do
    case $1 in
      --dry-run) DRY_RUN=yes ;;
      --help) say "$USAGE" && exit 0 ;;
      *) refuse "$USAGE" "There is no option $1." ;;
    esac
    shift
  done
  read_arguments "$USAGE" "$@"
  SUFFIX=amazonaws.com
  case $REGION in cn-*) SUFFIX=amazonaws.com.cn ;; esac
  read_options
  declare -gA TAG=()
  stage "checking what is needed"
  check
  stage "uploading templates and code"
  upload
  settle
  if [ "$STATUS" = NONE ]; then
    say "The stack is created without images, which are built meanwhile."
    create
  fi
  stage "building images"
  build
  if [ "$STATUS" = NONE ]; then
    stage "creating the stack"
    await create "The stack is being created"
    complete created
  fi
  stage "pushing images"
  push
  stage "updating the stack"
  update
  complete updated
  report
}

main "$@"
