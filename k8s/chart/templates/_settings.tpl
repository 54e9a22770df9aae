{{/* The settings tree that everything is given, and what of Kubernetes follows from it. */}}

{{- define "weir.settings" -}}
{{- $given := deepCopy .Values.settings -}}
{{- $gateways := 0 -}}
{{- range .Values.gateways.groups -}}{{- $gateways = add $gateways .replicas -}}{{- end -}}
{{- $redis := dict "mode" "external" "url" (include "weir.redisUrl" (dict "root" . "password" false)) -}}
{{- $server := dict "host" "0.0.0.0" "port" 8000 -}}
{{- $gateway := dict "replicas" (int $gateways) "standbys" 0 "metrics_port" 8001 -}}
{{- $ray := dict "address" "auto" "pool_labels" true -}}
{{- $chart := dict "server" $server "gateway" $gateway "ray" $ray "redis" $redis -}}
{{- toYaml (mustMergeOverwrite $given $chart) -}}
{{- end -}}

{{/* The same without tenants: a Job puts those into the database, and a change of theirs must not
build the application again. */}}
{{- define "weir.servedSettings" -}}
{{- toYaml (omit (include "weir.settings" . | fromYaml) "tenants") -}}
{{- end -}}

{{- define "weir.drainSeconds" -}}
{{- $server := default dict .Values.settings.server -}}
{{- int (default 60 $server.drain_timeout_s) -}}
{{- end -}}

{{- define "weir.redisHost" -}}
{{- if eq .Values.redis.mode "own" -}}
{{- printf "%s-redis" (include "weir.name" .) -}}
{{- else -}}
{{- required "redis.external.host is needed where redis.mode is external" .Values.redis.external.host -}}
{{- end -}}
{{- end -}}

{{/* root; password: whether the variable with the password stands in it. */}}
{{- define "weir.redisUrl" -}}
{{- $root := .root -}}
{{- $redis := $root.Values.redis -}}
{{- $host := include "weir.redisHost" $root -}}
{{- if eq $redis.mode "own" -}}
{{- printf "redis://%s%s:6379/0" (ternary ":$(WEIR_REDIS_PASSWORD)@" "" .password) $host -}}
{{- else -}}
{{- $x := $redis.external -}}
{{- $login := "" -}}
{{- if and .password $root.Values.secrets.redisPasswordKey -}}
{{- $login = printf "%s:$(WEIR_REDIS_PASSWORD)@" $x.username -}}
{{- end -}}
{{- $ca := ternary "?ssl_ca_certs=/etc/weir/redis/ca.crt" "" (and $x.tls (ne $x.caSecret "")) -}}
{{- printf "%s://%s%s:%d/%d%s" (ternary "rediss" "redis" $x.tls) $login $host (int $x.port) (int $x.db) $ca -}}
{{- end -}}
{{- end -}}

{{/* One entry for each deployment of a model: what it is called in Serve and in Ray's labels, how many
pods it takes, and the settings of its pods with everything laid over each other. */}}
{{- define "weir.pools" -}}
{{- $root := . -}}
{{- $all := list -}}
{{- range $model := required "settings.models is required" .Values.settings.models -}}
{{- range $pool := default (list dict) $model.pools -}}
{{- $key := ternary (printf "%s:%s" $model.name $pool.name) $model.name (hasKey $pool "name") -}}
{{- $accelerator := default (default "" $model.accelerator) $pool.accelerator -}}
{{- $market := default "on_demand" $pool.market -}}
{{- $defaults := deepCopy $root.Values.workers.defaults -}}
{{- $byAccelerator := deepCopy (default dict (index $root.Values.workers.accelerators $accelerator)) -}}
{{- $byMarket := deepCopy (default dict (index $root.Values.workers.markets $market)) -}}
{{- $byPool := deepCopy (default dict (index $root.Values.workers.pools $key)) -}}
{{- $tolerations := concat $defaults.tolerations (default list $byAccelerator.tolerations) (default list $byMarket.tolerations) (default list $byPool.tolerations) -}}
{{- $pods := mustMergeOverwrite $defaults $byAccelerator $byMarket $byPool -}}
{{- $_ := set $pods "tolerations" $tolerations -}}
{{- $parallel := default (default dict $model.parallel) $pool.parallel -}}
{{- $span := mul (default 1 $parallel.tensor) (default 1 $parallel.pipeline) (default 1 $parallel.data) -}}
{{- $each := ternary (int $span) (int $pods.gpusPerPod) (eq (int $pods.gpusPerPod) 0) -}}
{{- $hosts := ternary (div (add $span (sub $each 1)) $each) 1 (ne $accelerator "") -}}
{{- $scaling := ternary $pool.autoscaling $model.autoscaling (hasKey $pool "name") -}}
{{- $own := ternary $pool.replicas $model.replicas (hasKey $pool "name") -}}
{{- $replicas := ternary 1 (int $own) (kindIs "invalid" $own) -}}
{{- $least := $replicas -}}
{{- $most := $replicas -}}
{{- if and $scaling (gt $replicas 0) -}}
{{- $least = int (ternary $scaling.min_replicas 1 (hasKey $scaling "min_replicas")) -}}
{{- $most = int (ternary $scaling.max_replicas 1 (hasKey $scaling "max_replicas")) -}}
{{- $replicas = ternary (max $least (min $most $replicas)) $most $root.Values.ray.autoscaling.enabled -}}
{{- end -}}
{{- $label := printf "%s%s" ($model.name | replace "/" "--") (ternary (printf ".%s" (default "" $pool.name)) "" (hasKey $pool "name")) -}}
{{- if gt (len $label) 63 -}}{{- fail (printf "settings.models: %s is too long for a node label; at most 63 characters with its pool" $key) -}}{{- end -}}
{{- $group := $label | lower | replace "." "-" | replace "_" "-" -}}
{{- $group = ternary (printf "%s-%s" ($group | trunc 18 | trimSuffix "-") (sha256sum $label | trunc 6)) $group (gt (len $group) 25) -}}
{{- $entry := dict "key" $key "model" $model.name "label" $label "group" $group "accelerator" $accelerator "market" $market "gpus" (ternary 0 $each (eq $accelerator "")) "replicas" (mul $replicas $hosts) "least" (mul $least $hosts) "most" (mul $most $hosts) "drain" (int (default 60 $model.drain_timeout_s)) "notices" (default "" (default dict $pool.notices).source) "pods" $pods -}}
{{- $all = append $all $entry -}}
{{- end -}}
{{- end -}}
{{- range $key, $_ := $root.Values.workers.pools -}}
{{- $known := false -}}
{{- range $all -}}{{- if eq .key $key -}}{{- $known = true -}}{{- end -}}{{- end -}}
{{- if not $known -}}{{- fail (printf "workers.pools: %s is no pool of settings.models" $key) -}}{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* What names the state of the model files' volume: another one runs the Job again. */}}
{{- define "weir.filesMark" -}}
{{- $sources := list .Values.modelFiles.revision (toJson .Values.modelFiles.copies) (toJson (default dict .Values.settings.registry)) -}}
{{- range .Values.settings.models -}}
{{- $sources = concat $sources (list .source (toJson (default dict .speculative)) (toJson (default list .adapters))) -}}
{{- end -}}
{{- sha256sum (toJson $sources) | trunc 10 -}}
{{- end -}}
