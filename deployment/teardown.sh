#!/usr/bin/env bash
# Lists everything of a studio that still costs money, removes it, and says what is left.
set -euo pipefail

USAGE='Usage: deployment/teardown.sh [--dry-run] [--list] [--yes] [--keep-data] S3URL AWS-REGION stable-diffusion-webui

  S3URL        where build_and_deploy.sh has put templates and code
  --list       say what there is and what it costs, and end
  --yes        do not ask
  --keep-data  leave the bucket with models and pictures, databases and their snapshots, and their key
  --dry-run    print every command line and run none

Variables:
  PREFIX       what every name begins with, and the name of the stack (atelier)'

[ "${BASH_VERSINFO[0]}" -ge 4 ] || {
  echo "This needs bash 4 or newer; this is $BASH_VERSION. On macOS: brew install bash." >&2
  exit 1
}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deployment/shell.sh
source deployment/shell.sh

LIST=no
YES=no
KEEP_DATA=no
PROBLEMS=()
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
LEFT=$WORK/left

# Dollars an hour of hosting in us-east-1, October 2025, as portal/adapters/aws/instances.py has them.
declare -A PRICES=(
  [ml.g4dn.xlarge]=0.736 [ml.g4dn.2xlarge]=0.94 [ml.g4dn.4xlarge]=1.505 [ml.p3.2xlarge]=3.825
  [ml.g5.xlarge]=1.408 [ml.g5.2xlarge]=1.515 [ml.g5.4xlarge]=2.03
  [ml.g6.xlarge]=1.127 [ml.g6.2xlarge]=1.222 [ml.g6.4xlarge]=1.654
  [ml.g6e.xlarge]=2.606 [ml.g6e.2xlarge]=2.803 [ml.g6e.4xlarge]=3.755
  [ml.p4d.24xlarge]=25.251 [ml.p5.48xlarge]=63.296
)
# Dollars a month of a GB, or of one: list prices in us-east-1, October 2025.
BUCKET_GB=0.023
REGISTRY_GB=0.10
LOG_GB=0.03
SNAPSHOT_GB=0.021
DATABASE_UNIT=0.12 # an hour
ONE_SECRET=0.40
ONE_KEY=1.00
ONE_ALARM=0.10
QUICK_ALARM=0.30 # of an endpoint, looking every ten seconds
# What a stack costs without work, as docs/aws-operations.md adds it up.
STACK_HOUR=0.355

# --- What there is. Each line: kind, name, what it costs in words.

found() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$LEFT"; }

# names_of KIND: the names that were found of it.
names_of() { awk -F '\t' -v kind="$1" '$1 == kind { print $2 }' "$LEFT"; }

# rows COMMAND...: its rows; nothing where it is not allowed or there is nothing, which is noted.
rows() {
  local said
  if said=$(ask '' "${AWS[@]}" "$@" 2>"$WORK/error"); then
    printf '%s\n' "$said" | tr '\t' ' ' | awk 'NF && $1 != "None"'
  else
    printf 'Could not ask "%s %s": %s\n' "$1" "$2" "$(last_words)" >>"$WORK/unasked"
  fi
}

# Another studio's name may begin with this one's: atelier-test-x is an endpoint "test-x" of atelier, or "x" of
# atelier-test. What has tags is of the studio that its tag names; the rest goes by its name.

# labelled SERVICE COMMAND OPTION ARN: whether its tag Project names this studio.
labelled() {
  [ "$(rows "${@:1:2}" "$3" "$4" --query "Tags[?Key=='Project'].[Value]" --output text)" = "$PREFIX" ]
}

# mine NAME: whether it begins as ours do, and neither as those of another studio nor as an endpoint of others.
mine() {
  local other
  [[ $1 == "$PREFIX"-* ]] || return 1
  [ -f "$WORK/studios" ] || return 1
  while IFS= read -r other; do
    [[ $other != "$PREFIX"-* || $1 != "$other"-* ]] || return 1
  done <"$WORK/studios"
  ! grep -qxF -- "$1" "$WORK/foreign"
}

look_at_studios() {
  ask '' "${AWS[@]}" resourcegroupstaggingapi get-tag-values --key Project --query 'TagValues[].[@]' \
    --output text >"$WORK/studios" 2>"$WORK/error" || {
    rm -f "$WORK/studios"
    printf 'Could not ask for other studios, so what has no tags is left out: %s\n' "$(last_words)" >>"$WORK/unasked"
  }
}

product() { awk -v a="$1" -v b="$2" -v times="${3:-1}" 'BEGIN { printf "%.2f", a * b * times }'; }
gigabytes() { awk -v bytes="$1" 'BEGIN { printf "%.2f", bytes / 1e9 }'; }

look() {
  : >"$LEFT"
  : >"$WORK/unasked"
  : >"$WORK/foreign"
  look_at_studios
  rows resourcegroupstaggingapi get-resources --tag-filters "Key=Project,Values=$PREFIX" \
    --query 'ResourceTagMappingList[].[ResourceARN]' --output text >"$WORK/tagged"
  look_at_endpoints
  look_at_jobs
  look_at_scaling
  look_at_stack
  look_at_images
  look_at_logs
  look_at_secrets
  look_at_alarms
  look_at_data
}

# tagged PATTERN: the part of tagged ARNs that a sed expression keeps.
tagged() { sed -nE "$1" "$WORK/tagged"; }

look_at_endpoints() {
  local name arn count config instance price
  while read -r name arn; do
    [[ $name == "$PREFIX"-* ]] || continue
    if ! labelled sagemaker list-tags --resource-arn "$arn"; then
      printf '%s\n' "$name" >>"$WORK/foreign"
      continue
    fi
    config=$(rows sagemaker describe-endpoint --endpoint-name "$name" --query EndpointConfigName --output text)
    count=$(rows sagemaker describe-endpoint --endpoint-name "$name" \
      --query 'ProductionVariants[0].CurrentInstanceCount' --output text)
    instance=$(rows sagemaker describe-endpoint-config --endpoint-config-name "$config" \
      --query 'ProductionVariants[0].InstanceType' --output text)
    price=${PRICES[${instance:-none}]:-}
    if [ -n "$price" ]; then
      found endpoint "$name" "${count:-0} x $instance, \$$(product "${count:-0}" "$price") an hour, \$$(product "${count:-0}" "$price" 730) a month"
    else
      found endpoint "$name" "${count:-0} x ${instance:-an unknown instance}, price not known"
    fi
  done < <(rows sagemaker list-endpoints --name-contains "$PREFIX-" \
    --query 'Endpoints[].[EndpointName,EndpointArn]' --output text | sort -u)
  labelled_of endpoint-config free list-endpoint-configs --name-contains "$PREFIX-" \
    --query 'EndpointConfigs[].[EndpointConfigName,EndpointConfigArn]'
  labelled_of model free list-models --name-contains "$PREFIX-" --query 'Models[].[ModelName,ModelArn]'
}

# labelled_of KIND WORDS COMMAND...: found is what a question to SageMaker tells, as names with their ARNs.
labelled_of() {
  local kind=$1 words=$2 name arn
  shift 2
  while read -r name arn; do
    [[ $name == "$PREFIX"-* ]] || continue
    ! labelled sagemaker list-tags --resource-arn "$arn" || found "$kind" "$name" "$words"
  done < <(rows sagemaker "$@" --output text)
}

look_at_jobs() {
  labelled_of training-job "by the hour until it ends" list-training-jobs --name-contains "$PREFIX-" \
    --status-equals InProgress --query 'TrainingJobSummaries[].[TrainingJobName,TrainingJobArn]'
}

look_at_scaling() {
  local name endpoint
  while read -r name; do
    [[ $name == endpoint/* ]] || continue
    endpoint=${name#endpoint/}
    endpoint=${endpoint%%/*}
    ! { names_of endpoint | grep -xF -- "$endpoint" >/dev/null || mine "$endpoint"; } ||
      found scalable-target "$name" "free; starts instances"
  done < <(rows application-autoscaling describe-scalable-targets --service-namespace sagemaker \
    --query 'ScalableTargets[].[ResourceId]' --output text)
}

look_at_stack() {
  STATUS=$(stack_status)
  [ "$STATUS" = NONE ] || found stack "$PREFIX" "$STATUS, from \$$STACK_HOUR an hour, \$$(product "$STACK_HOUR" 730) a month, and what its tasks and database do"
}

look_at_images() {
  local name bytes
  while read -r name; do
    [[ $name == "$PREFIX"/* ]] || continue
    bytes=$(rows ecr describe-images --repository-name "$name" --query 'imageDetails[].[imageSizeInBytes]' \
      --output text | awk '{ sum += $1 } END { printf "%.0f", sum }')
    found repository "$name" "$(gigabytes "$bytes") GB of images, \$$(product "$(gigabytes "$bytes")" "$REGISTRY_GB") a month"
  done < <(rows ecr describe-repositories --query 'repositories[].[repositoryName]' --output text)
}

look_at_logs() {
  local start name bytes endpoint
  for start in "/$PREFIX/" "/aws/sagemaker/Endpoints/$PREFIX-"; do
    while read -r name bytes; do
      endpoint=${name#/aws/sagemaker/Endpoints/}
      [[ $name == "/$PREFIX/"* ]] || names_of endpoint | grep -xF -- "$endpoint" >/dev/null || mine "$endpoint" || continue
      found log-group "$name" "$(gigabytes "${bytes:-0}") GB, \$$(product "$(gigabytes "${bytes:-0}")" "$LOG_GB") a month"
    done < <(rows logs describe-log-groups --log-group-name-prefix "$start" \
      --query 'logGroups[].[logGroupName,storedBytes]' --output text)
  done
}

look_at_secrets() {
  local name
  while read -r name; do
    [[ $name != "$PREFIX"/* ]] || found secret "$name" "\$$ONE_SECRET a month"
  done < <(rows secretsmanager list-secrets --filters "Key=name,Values=$PREFIX/" \
    --query 'SecretList[].[Name]' --output text)
}

look_at_alarms() {
  local name arn price
  while read -r arn; do
    name=${arn##*:alarm:}
    case $name in *-out | *-wake) price=$QUICK_ALARM ;; *) price=$ONE_ALARM ;; esac
    ! labelled cloudwatch list-tags-for-resource --resource-arn "$arn" || found alarm "$name" "\$$price a month"
  done < <(rows cloudwatch describe-alarms --alarm-name-prefix "$PREFIX-" --query 'MetricAlarms[].[AlarmArn]' --output text)
}

# What a deleted stack leaves behind on purpose: the bucket, a database that was replaced, the last state of the database, and their key.
look_at_data() {
  local name size key
  while read -r name; do
    [[ $name == "$PREFIX"-* && $name != "$BUCKET" ]] || continue
    size=$(rows s3api list-object-versions --bucket "$name" --query 'Versions[].[Size]' --output text |
      awk '{ sum += $1 } END { printf "%.0f", sum }')
    found bucket "$name" "$(gigabytes "$size") GB, \$$(product "$(gigabytes "$size")" "$BUCKET_GB") a month"
  done < <(tagged 's|^arn:[^:]*:s3:::([^/]*)$|\1|p')
  while read -r name size; do
    found database "$name" "$size units at least, \$$(product "$size" "$DATABASE_UNIT") an hour; in the stack's price if it is the stack's"
  done < <(rows rds describe-db-clusters --output text \
    --query "DBClusters[?TagList[?Key=='Project' && Value=='$PREFIX']].[DBClusterIdentifier,ServerlessV2ScalingConfiguration.MinCapacity]")
  while read -r name size; do
    found snapshot "$name" "${size:-0} GB, \$$(product "${size:-0}" "$SNAPSHOT_GB") a month"
  done < <(rows rds describe-db-cluster-snapshots --snapshot-type manual \
    --query "DBClusterSnapshots[?TagList[?Key=='Project' && Value=='$PREFIX']].[DBClusterSnapshotIdentifier,AllocatedStorage]" \
    --output text)
  while read -r key; do
    size=$(rows kms describe-key --key-id "$key" --query 'KeyMetadata.[KeyState,Description]' --output text)
    [[ $size == "Enabled Everything that the studio $PREFIX keeps" ]] || continue
    found key "$key" "\$$ONE_KEY a month"
  done < <(tagged 's|^arn:[^:]*:kms:.*:key/(.*)$|\1|p')
  size=$(rows s3api list-objects-v2 --bucket "$BUCKET" --prefix "$FOLDER/" --query 'Contents[].[Key]' --output text |
    awk -v at=${#FOLDER} '
      { name = substr($0, at + 2) }
      name ~ /^([0-9a-f]+\/cloudformation\/|lambda\/gateway-|code\/atelier-|deployments\/)/ { count++ }
      END { printf "%.0f", count }')
  [ "${size:-0}" = 0 ] || found upload "s3://$BUCKET/$FOLDER/" "$size objects of templates and code"
}

show() {
  if [ "$DRY_RUN" = yes ]; then return 0; fi
  if [ -s "$LEFT" ]; then
    say "$1"
    awk -F '\t' '{ printf "  %-16s %-44s %s\n", $1, $2, $3 }' "$LEFT"
  else
    say "Nothing is left that was made for '$PREFIX' in $REGION."
  fi
  if [ -s "$WORK/unasked" ]; then
    say "What could not be looked at:"
    sed 's/^/  /' "$WORK/unasked"
  fi
}

# --- Removing. A failure is told at the end and keeps nothing else from being removed but what needs it gone.

# try COMMAND...: sets TRIED, its exit status.
try() {
  local code=0
  run "$@" >/dev/null 2>"$WORK/error" || code=$?
  TRIED=$code
  [ "$code" = 0 ] || PROBLEMS+=("$(shown "$@" | cut -c3-): $(last_words)")
}

# each KIND COMMAND...: COMMAND for each name of a kind, with the name as its last word.
each() {
  local kind=$1 name
  shift
  while IFS= read -r name; do
    [ -z "$name" ] || try "${AWS[@]}" "$@" "$name"
  done < <(names_of "$kind")
}

remove_work() {
  local name going=()
  while read -r name; do
    try "${AWS[@]}" application-autoscaling deregister-scalable-target --service-namespace sagemaker \
      --scalable-dimension sagemaker:variant:DesiredInstanceCount --resource-id "$name"
  done < <(names_of scalable-target)
  each training-job sagemaker stop-training-job --training-job-name
  while IFS= read -r name; do
    try "${AWS[@]}" sagemaker delete-endpoint --endpoint-name "$name"
    [ "$TRIED" != 0 ] || going+=("$name")
  done < <(names_of endpoint)
  # Its interfaces stay in the stack's network until it is gone.
  for name in "${going[@]}"; do try "${AWS[@]}" sagemaker wait endpoint-deleted --endpoint-name "$name"; done
  each endpoint-config sagemaker delete-endpoint-config --endpoint-config-name
  each model sagemaker delete-model --model-name
}

# A portal that runs would start again what is removed below.
stop_services() {
  local cluster service task services=()
  cluster=$(rows cloudformation describe-stacks --stack-name "$PREFIX" \
    --query "Stacks[0].Outputs[?OutputKey=='Cluster'].[OutputValue]" --output text)
  [ -n "$cluster" ] || return 0
  while read -r service; do
    try "${AWS[@]}" ecs update-service --cluster "$cluster" --service "$service" --desired-count 0
    services+=("$service")
  done < <(rows ecs list-services --cluster "$cluster" --query 'serviceArns[].[@]' --output text)
  if [ ${#services[@]} -gt 0 ]; then
    say "Waiting until web UI and portal have stopped (up to ten minutes)."
    try "${AWS[@]}" ecs wait services-stable --cluster "$cluster" --services "${services[@]}"
  fi
  # What runs still was started one by one: imports, conversions, commands.
  while read -r task; do
    try "${AWS[@]}" ecs stop-task --cluster "$cluster" --task "$task"
  done < <(rows ecs list-tasks --cluster "$cluster" --query 'taskArns[].[@]' --output text)
}

# Database and load balancer refuse to be deleted until they are told otherwise. A stack that failed takes no
# update, so they are told themselves.
unprotect_each() {
  local name
  say "Taking the protection against deletion away."
  while IFS= read -r name; do
    [ -z "$name" ] || release_database "$name"
  done < <(names_of database)
  while IFS= read -r name; do
    try "${AWS[@]}" elbv2 modify-load-balancer-attributes --load-balancer-arn "$name" \
      --attributes Key=deletion_protection.enabled,Value=false
  done < <(tagged 's|^(arn:[^:]*:elasticloadbalancing:.*:loadbalancer/app/.*)$|\1|p')
}

release_database() {
  try "${AWS[@]}" rds modify-db-cluster --no-deletion-protection --apply-immediately --db-cluster-identifier "$1"
}

unprotect() {
  local options=("ParameterKey=DeletionProtection,ParameterValue=false") key
  while IFS= read -r key; do
    [ -z "$key" ] || [ "$key" = DeletionProtection ] || options+=("ParameterKey=$key,UsePreviousValue=true")
  done < <(rows cloudformation describe-stacks --stack-name "$PREFIX" \
    --query 'Stacks[0].Parameters[].[ParameterKey]' --output text)
  say "Taking the protection against deletion away."
  if run "${AWS[@]}" cloudformation update-stack --stack-name "$PREFIX" --use-previous-template \
    --capabilities CAPABILITY_NAMED_IAM --parameters "${options[@]}" >/dev/null 2>"$WORK/error"; then
    run "${AWS[@]}" cloudformation wait stack-update-complete --stack-name "$PREFIX" 2>"$WORK/error" ||
      PROBLEMS+=("The stack could not be told to let go of its database: $(last_words)")
  elif ! grep -q 'No updates are to be performed' "$WORK/error"; then
    PROBLEMS+=("The stack could not be told to let go of its database: $(last_words)")
  fi
}

remove_stack() {
  [ -n "$(names_of stack)" ] || [ "$DRY_RUN" = yes ] || return 0
  case $STATUS in
    *_IN_PROGRESS)
      [ "$STATUS" = DELETE_IN_PROGRESS ] ||
        die "The stack is busy ($STATUS). Wait for its end, then run this again: what was removed stays removed."
      ;;
    NONE | CREATE_COMPLETE | UPDATE_COMPLETE | UPDATE_ROLLBACK_COMPLETE | IMPORT_COMPLETE | IMPORT_ROLLBACK_COMPLETE)
      unprotect
      ;;
    *_FAILED) unprotect_each ;;
  esac
  say "Deleting the stack; this takes a while (up to an hour)."
  try "${AWS[@]}" cloudformation delete-stack --stack-name "$PREFIX"
  if ! run "${AWS[@]}" cloudformation wait stack-delete-complete --stack-name "$PREFIX" 2>"$WORK/error"; then
    PROBLEMS+=("The stack is not gone. What kept it:" "$(failures)")
  fi
}

# Whether nothing of the stack is there any more. What is left of it needs its secrets, data and key.
stack_is_gone() {
  [ "$STATUS" != NONE ] || return 0
  PROBLEMS+=("Its logs, images, secrets and templates, bucket, snapshots and key stay, since the stack is still there ($STATUS). Mend what kept it, then run this again.")
  return 1
}

remove_rest() {
  local name
  each alarm cloudwatch delete-alarms --alarm-names
  each log-group logs delete-log-group --log-group-name
  each repository ecr delete-repository --force --repository-name
  each secret secretsmanager delete-secret --force-delete-without-recovery --secret-id
  # What somebody else keeps in that folder stays.
  [ -z "$(names_of upload)" ] || try "${AWS[@]}" s3 rm "s3://$BUCKET/$FOLDER/" --recursive --only-show-errors \
    --exclude '*' --include '*/cloudformation/*.yaml' --include 'lambda/gateway-*.zip' \
    --include 'code/atelier-*.zip' --include 'deployments/*.json'
  [ "$KEEP_DATA" = no ] || return 0
  while IFS= read -r name; do remove_database "$name"; done < <(names_of database)
  each snapshot rds delete-db-cluster-snapshot --db-cluster-snapshot-identifier
  while read -r name; do
    empty "$name" Versions
    empty "$name" DeleteMarkers
    try "${AWS[@]}" s3api delete-bucket --bucket "$name"
  done < <(names_of bucket)
  # Last, for everything above is encrypted with it. AWS keeps a key for a week at least; it is free then.
  each key kms schedule-key-deletion --pending-window-in-days 7 --key-id
}

# A database that an update of the stack has replaced and could not delete.
remove_database() {
  local instance
  release_database "$1"
  while read -r instance; do
    try "${AWS[@]}" rds delete-db-instance --db-instance-identifier "$instance"
  done < <(rows rds describe-db-instances --filters "Name=db-cluster-id,Values=$1" \
    --query 'DBInstances[].[DBInstanceIdentifier]' --output text)
  try "${AWS[@]}" rds delete-db-cluster --skip-final-snapshot --db-cluster-identifier "$1"
  [ "$TRIED" != 0 ] || try "${AWS[@]}" rds wait db-cluster-deleted --db-cluster-identifier "$1"
}

# empty BUCKET Versions|DeleteMarkers: delete all of them, a thousand at a time.
empty() {
  local list=$WORK/objects.json
  while true; do
    run "${AWS[@]}" s3api list-object-versions --bucket "$1" --max-items 1000 \
      --query "{Objects: $2[].{Key: Key, VersionId: VersionId}, Quiet: \`true\`}" --output json \
      >"$list" 2>"$WORK/error" || break
    grep -q '"Key"' "$list" || break
    run "${AWS[@]}" s3api delete-objects --bucket "$1" --delete "file://$list" >/dev/null 2>"$WORK/error" || {
      PROBLEMS+=("The bucket $1 could not be emptied: $(last_words)")
      break
    }
  done
}

confirm() {
  local answer
  [ "$YES" = no ] && [ "$DRY_RUN" = no ] || return 0
  [ -t 0 ] || [ -p /dev/stdin ] || die "Nobody can be asked here. Give --yes if all of this shall be removed."
  if [ "$KEEP_DATA" = no ]; then
    say "All of this is removed for good, models and pictures too (--keep-data leaves those)."
  else
    say "All of this is removed for good, but for bucket, snapshots and key."
  fi
  printf 'Type %s to go on: ' "$PREFIX"
  read -r answer || answer=
  [ "$answer" = "$PREFIX" ] || die "Nothing was removed."
}

main() {
  while [[ ${1:-} == --* ]]; do
    case $1 in
      --dry-run) DRY_RUN=yes ;;
      --list) LIST=yes ;;
      --yes) YES=yes ;;
      --keep-data) KEEP_DATA=yes ;;
      --help) say "$USAGE" && exit 0 ;;
      *) refuse "$USAGE" "There is no option $1." ;;
    esac
    shift
  done
  read_arguments "$USAGE" "$@"
  command -v aws >/dev/null || [ "$DRY_RUN" = yes ] ||
    PROBLEMS+=("The command aws is missing. Install it, and see that it is on the PATH.")
  [ ${#PROBLEMS[@]} -gt 0 ] || check_identity || true
  tell_problems "Nothing can be looked at:"
  look
  show "What there is of '$PREFIX' in $REGION (prices of us-east-1, October 2025; yours may differ):"
  [ "$LIST" = no ] || exit 0
  [ -s "$LEFT" ] || [ "$DRY_RUN" = yes ] || exit 0
  confirm
  [ "$STATUS" = NONE ] && [ "$DRY_RUN" = no ] || stop_services
  remove_work
  remove_stack
  look # a deleted stack leaves a snapshot, its bucket and its key
  remove_work
  ! stack_is_gone || remove_rest
  look
  say ""
  show "What is left:"
  tell_problems "Not everything could be removed:"
  [ ! -s "$LEFT" ] || [ "$KEEP_DATA" = yes ] || exit 1
}

main "$@"
