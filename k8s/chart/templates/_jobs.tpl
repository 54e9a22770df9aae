{{/* The pod of a job: root, account, command, env (a list), mounts, volumes, resources, pods. */}}
{{- define "weir.jobPod" -}}
metadata:
  labels:
    app.kubernetes.io/name: weir
    app.kubernetes.io/instance: {{ .root.Release.Name }}
    app.kubernetes.io/component: job
spec:
  serviceAccountName: {{ include "weir.name" .root }}-job
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: OnFailure
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext: {{- include "weir.podSecurity" .root | nindent 4 }}
  {{- with .root.Values.jobs.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.jobs.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "weir.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: {{ toJson .command }}
      env: {{- concat (include "weir.environment" .root | fromYamlArray) .env | toYaml | nindent 8 }}
      resources: {{- toYaml .resources | nindent 8 }}
      securityContext: {{- include "weir.containerSecurity" .root | nindent 8 }}
      volumeMounts: {{- concat (include "weir.mounts" .root | fromYamlArray) .mounts | toYaml | nindent 8 }}
  volumes: {{- concat (include "weir.volumes" .root | fromYamlArray) .volumes | toYaml | nindent 4 }}
{{- end -}}

{{- define "weir.featureMounts" -}}
- {name: features, mountPath: /features}
# Where `weir features` looks for the platform's settings.
- {name: settings, mountPath: /var/lib/weir/settings.yaml, subPath: settings.yaml, readOnly: true}
{{- end -}}

{{- define "weir.featureVolume" -}}
- name: features
  persistentVolumeClaim:
    claimName: {{ required "jobs.features.existingClaim is needed where jobs.features or jobs.generation is enabled" .Values.jobs.features.existingClaim }}
{{- end -}}
