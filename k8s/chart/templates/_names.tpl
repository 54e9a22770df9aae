{{/* Names, labels, images. */}}

{{- define "weir.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 30 | trimSuffix "-" -}}
{{- end -}}

{{- define "weir.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "weir.selector" . }}
{{- end -}}

{{- define "weir.selector" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "weir.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The start of a name by which pods are found: a group's front doors. */}}
{{- define "weir.frontDoors" -}}
{{- $own := list -}}
{{- $shared := false -}}
{{- range .Values.gateways.groups -}}
{{- if .frontDoor -}}
{{- $own = append $own (dict "name" (printf "front-%s" .name) "group" .name "nodeSelector" (default dict .nodeSelector) "tolerations" (default list .tolerations)) -}}
{{- else -}}
{{- $shared = true -}}
{{- end -}}
{{- end -}}
{{- if $shared -}}
{{- $own = prepend $own (dict "name" "front" "group" "" "nodeSelector" dict "tolerations" list) -}}
{{- end -}}
{{- toYaml $own -}}
{{- end -}}

{{- define "weir.frontService" -}}
{{- $first := index (include "weir.frontDoors" . | fromYamlArray) 0 -}}
{{- printf "%s-%s" (include "weir.name" .) $first.name -}}
{{- end -}}
