{{/* What Ray Serve is told. The application is built by deployments/serving.py. */}}
{{- define "weir.serveConfig" -}}
proxy_location: HeadOnly
http_options:
  host: 0.0.0.0
  port: 8500
  request_timeout_s: null
  keep_alive_timeout_s: 120
applications:
  - name: weir
    route_prefix: /
    import_path: deployments.serving:build
    args:
      settings: {{- include "weir.servedSettings" . | nindent 8 }}
{{- end -}}

{{/* Ports of Ray's own, so that network policies can tell them from those of gateways and replicas. */}}
{{- define "weir.rayPorts" -}}
node-manager-port: "6380"
object-manager-port: "6381"
runtime-env-agent-port: "6382"
dashboard-agent-grpc-port: "6383"
dashboard-agent-listen-port: "52365"
metrics-export-port: "8080"
min-worker-port: "10002"
max-worker-port: "19999"
{{- end -}}
