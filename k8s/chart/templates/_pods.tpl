{{/* Parts of pods. */}}

{{- define "weir.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "weir.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* root, key of weir's Secret, name of the variable. */}}
{{- define "weir.secretVariable" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ default .root.Values.secrets.name .secret }}, key: {{ .key }}}}
{{- end -}}

{{/* Of every container of weir's. */}}
{{- define "weir.environment" -}}
{{- $root := . -}}
{{ include "weir.secretVariable" (dict "root" . "name" "WEIR_INTERNAL_TOKEN" "key" .Values.secrets.internalTokenKey) }}
{{ include "weir.secretVariable" (dict "root" . "name" "WEIR_DATABASE_URL" "key" .Values.secrets.databaseUrlKey) }}
{{- if .Values.secrets.redisPasswordKey }}
{{ include "weir.secretVariable" (dict "root" . "name" "WEIR_REDIS_PASSWORD" "key" .Values.secrets.redisPasswordKey) }}
{{- end }}
{{- if .Values.secrets.webhookSecretKey }}
{{ include "weir.secretVariable" (dict "root" . "name" "WEIR_WEBHOOK_SECRET" "key" .Values.secrets.webhookSecretKey) }}
{{- end }}
- name: WEIR_REDIS_URL
  value: {{ include "weir.redisUrl" (dict "root" . "password" true) | quote }}
- name: HOME
  value: /var/lib/weir
{{- range .Values.secrets.env }}
{{ include "weir.secretVariable" (dict "root" $root "name" .name "key" .key "secret" .secret) }}
{{- end }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* Where model files are, and things that may get lost. */}}
{{- define "weir.fileEnvironment" -}}
- name: WEIR_HOME
  value: {{ ternary "/models/weir" "/var/lib/weir" .Values.modelFiles.enabled }}
- name: HF_HOME
  value: {{ ternary "/models/hub" "/cache/hub" .Values.modelFiles.enabled }}
- name: HF_MODULES_CACHE
  value: /cache/modules
- name: XDG_CACHE_HOME
  value: /cache
- name: VLLM_CACHE_ROOT
  value: /cache/vllm
- name: TRITON_CACHE_DIR
  value: /cache/triton
- name: TORCHINDUCTOR_CACHE_DIR
  value: /cache/inductor
- name: VLLM_NO_USAGE_STATS
  value: "1"
{{- end -}}

{{- define "weir.volumes" -}}
- name: settings
  configMap: {name: {{ include "weir.name" . }}-settings}
- name: tmp
  emptyDir: {}
- name: state
  emptyDir: {}
{{- if and (eq .Values.redis.mode "external") .Values.redis.external.caSecret }}
- name: redis-ca
  secret:
    secretName: {{ .Values.redis.external.caSecret }}
    items: [{key: {{ .Values.redis.external.caKey }}, path: ca.crt}]
{{- end }}
{{- end -}}

{{- define "weir.mounts" -}}
- {name: settings, mountPath: /etc/weir/settings, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: state, mountPath: /var/lib/weir}
{{- if and (eq .Values.redis.mode "external") .Values.redis.external.caSecret }}
- {name: redis-ca, mountPath: /etc/weir/redis, readOnly: true}
{{- end }}
{{- end -}}

{{- define "weir.modelVolume" -}}
{{- if .Values.modelFiles.enabled -}}
- name: models
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-models" (include "weir.name" .)) .Values.modelFiles.existingClaim }}
{{- end -}}
{{- end -}}

{{/* root, name, labels: pods of one kind on different nodes and zones. */}}
{{- define "weir.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: {{ .root.Values.spreadOverNodes }}
  labelSelector: &{{ .anchor }}
    matchLabels: {{- toYaml .labels | nindent 6 }}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector: *{{ .anchor }}
{{- end -}}

{{/* root, arguments: waits until a condition holds, in weir's image, before the pod's own container. */}}
{{- define "weir.waitContainer" -}}
- name: {{ .name }}
  image: {{ .image | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: {{ toJson .command }}
  env: {{- concat (include "weir.environment" .root | fromYamlArray) (include "weir.fileEnvironment" .root | fromYamlArray) | toYaml | nindent 4 }}
  resources:
    requests: {cpu: 50m, memory: 256Mi}
    limits: {cpu: "1", memory: 1Gi}
  securityContext: {{- include "weir.containerSecurity" .root | nindent 4 }}
  volumeMounts: {{- .mounts | toYaml | nindent 4 }}
{{- end -}}

{{/* A pod of Ray's: root, component, label (of Ray's nodes), model, image, resources, pods (where it
may run), sharedMemory, cacheSize, env, gpus, graceSeconds, lifecycle, ports, readiness. */}}
{{- define "weir.rayPod" -}}
{{- $root := .root -}}
{{- $labels := dict "app.kubernetes.io/name" "weir" "app.kubernetes.io/instance" $root.Release.Name "app.kubernetes.io/component" .component "weir/pool" .label -}}
{{- $mounts := include "weir.mounts" $root | fromYamlArray -}}
{{- $mounts = concat $mounts (list (dict "name" "shared-mem" "mountPath" "/dev/shm") (dict "name" "cache" "mountPath" "/cache")) -}}
{{- if $root.Values.modelFiles.enabled -}}
{{- $mounts = append $mounts (dict "name" "models" "mountPath" "/models" "readOnly" true) -}}
{{- end -}}
{{- $ledger := and (eq .component "gateway") $root.Values.ledger.existingClaim -}}
{{- if $ledger -}}
{{- $mounts = append $mounts (dict "name" "ledger" "mountPath" "/var/lib/weir/ledger") -}}
{{- end -}}
{{- $variables := concat (include "weir.environment" $root | fromYamlArray) (include "weir.fileEnvironment" $root | fromYamlArray) -}}
{{- if $root.Values.modelFiles.enabled -}}
{{- $variables = append $variables (dict "name" "HF_HUB_OFFLINE" "value" "1") -}}
{{- end -}}
{{- range $name, $value := $root.Files.Get "files/environment.yaml" | fromYaml -}}
{{- $variables = append $variables (dict "name" $name "value" $value) -}}
{{- end -}}
{{- if eq .component "gateway" -}}
{{- $variables = concat $variables (list (dict "name" "WEIR_CONTROL_ADDRESS" "value" (printf "http://%s-control:8080" (include "weir.name" $root))) (dict "name" "WEIR_LEDGER_FOLDER" "value" "/var/lib/weir/ledger") (dict "name" "WEIR_DIRECTORY_FILE" "value" "/var/lib/weir/directory.json")) -}}
{{- end -}}
{{- range $name, $value := default dict .env -}}
{{- $variables = append $variables (dict "name" $name "value" $value) -}}
{{- end -}}
{{- if and (eq $root.Values.redis.mode "external") $root.Values.redis.external.caSecret -}}
{{- $variables = append $variables (dict "name" "RAY_REDIS_CA_CERT" "value" "/etc/weir/redis/ca.crt") -}}
{{- end -}}
metadata:
  labels: {{- toYaml $labels | nindent 4 }}
  annotations:
    cluster-autoscaler.kubernetes.io/safe-to-evict: {{ ternary "true" "false" (eq .component "gateway") | quote }}
spec:
  serviceAccountName: {{ include "weir.name" $root }}-{{ ternary "head" "ray" (eq .component "head") }}
  automountServiceAccountToken: {{ and (eq .component "head") $root.Values.ray.autoscaling.enabled }}
  enableServiceLinks: false
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pods.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .pods.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .graceSeconds }}
  securityContext: {{- include "weir.podSecurity" $root | nindent 4 }}
  {{- with .pods.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pods.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pods.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if ne .component "head" }}
  topologySpreadConstraints: {{- include "weir.spread" (dict "root" $root "labels" $labels "anchor" "own") | fromYamlArray | toYaml | nindent 4 }}
  {{- end }}
  {{- $waits := list }}
  {{- if eq .component "gateway" }}
  {{- $waits = append $waits (dict "name" "wait-for-database" "command" (list "python" "-m" "deployments.preparing" "--settings" "/etc/weir/settings/settings.yaml" "--wait")) }}
  {{- end }}
  {{- if $root.Values.modelFiles.enabled }}
  {{- $waits = append $waits (dict "name" "wait-for-models" "command" (list "python" "-m" "deployments.fetching" "--settings" "/etc/weir/settings/settings.yaml" "--folder" "/models" "--done" (include "weir.filesMark" $root) "--wait")) }}
  {{- end }}
  {{- if $waits }}
  initContainers:
  {{- range $waits }}
    {{- include "weir.waitContainer" (dict "root" $root "name" .name "command" .command "image" $.image "mounts" $mounts) | nindent 4 }}
  {{- end }}
  {{- end }}
  containers:
    - name: {{ ternary "ray-head" "ray-worker" (eq .component "head") }}
      image: {{ .image | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      env: {{- toYaml $variables | nindent 8 }}
      ports: {{- toYaml .ports | nindent 8 }}
      resources: {{- toYaml .resources | nindent 8 }}
      securityContext: {{- include "weir.containerSecurity" $root | nindent 8 }}
      {{- with .probes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      lifecycle:
        preStop:
          exec:
            command: {{ toJson .leaving }}
      volumeMounts: {{- toYaml $mounts | nindent 8 }}
  volumes:
    {{- include "weir.volumes" $root | nindent 4 }}
    - name: shared-mem
      emptyDir: {medium: Memory, sizeLimit: {{ .pods.sharedMemory }}}
    - name: cache
      emptyDir: {sizeLimit: {{ default "10Gi" .pods.cacheSize }}}
    {{- with include "weir.modelVolume" $root }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- if $ledger }}
    - name: ledger
      persistentVolumeClaim: {claimName: {{ $root.Values.ledger.existingClaim }}}
    {{- end }}
{{- end -}}
