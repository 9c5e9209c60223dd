{{- define "pomogator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "pomogator.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pomogator
{{- end -}}

{{- define "pomogator.metadata" -}}
{{- /* (context, name, [labels]): metadata of an object. */ -}}
{{- $context := index . 0 -}}
name: {{ index . 1 }}
namespace: {{ $context.Release.Namespace }}
labels:
  {{- include "pomogator.labels" $context | nindent 2 }}
  {{- range $name, $value := (index . 2) }}
  {{ $name }}: {{ $value | quote }}
  {{- end }}
{{- end -}}

{{- define "pomogator.image" -}}
{{- /* (context, image) */ -}}
{{- $context := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $context.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "pomogator.isFleet" -}}
{{- if ne .Values.mode "single" }}true{{ end -}}
{{- end -}}

{{- define "pomogator.isSplit" -}}
{{- if eq .Values.mode "split" }}true{{ end -}}
{{- end -}}

{{- define "pomogator.enabled" -}}
{{- /* (context, switch): whether a part is there that single lacks by default. */ -}}
{{- $switch := index . 1 -}}
{{- if kindIs "invalid" $switch -}}{{ include "pomogator.isFleet" (index . 0) }}
{{- else if $switch -}}true{{- end -}}
{{- end -}}

{{- define "pomogator.drains" -}}
{{- /* How many listeners drain one after the other: REST and gRPC, or gRPC alone. */ -}}
{{- ternary 1 2 (eq .Values.mode "split") -}}
{{- end -}}

{{- define "pomogator.drainTimeout" -}}
{{- if kindIs "invalid" .Values.drainTimeoutSeconds -}}{{ ternary 600 300 (eq .Values.mode "split") }}
{{- else -}}{{ int .Values.drainTimeoutSeconds }}{{- end -}}
{{- end -}}

{{- define "pomogator.drainArgument" -}}
{{- /* 600 is the program's own. */ -}}
{{- $seconds := include "pomogator.drainTimeout" . -}}
{{- if ne $seconds "600" }}
- --drain-timeout={{ $seconds }}
{{- end }}
{{- end -}}

{{- define "pomogator.migrationName" -}}
{{- printf "%s-migration-%s" (include "pomogator.name" .) (.Chart.AppVersion | replace "." "-" | replace "+" "-") | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "pomogator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "pomogator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "pomogator.spread" -}}
{{- /* name of the pods */ -}}
{{- $name := . -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: { app.kubernetes.io/name: {{ $name }} }
{{- end }}
{{- end -}}

{{- define "pomogator.placement" -}}
{{- /* values of server or edge */ -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "pomogator.secretEnv" -}}
{{- /* (variable, secret) */ -}}
- name: {{ index . 0 }}
  valueFrom: { secretKeyRef: { name: {{ (index . 1).existingSecret }}, key: {{ (index . 1).key }} } }
{{- end -}}

{{- define "pomogator.traceEnv" -}}
{{- if .Values.traces.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.traces.endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .Values.traces.ratio | quote }}
{{- end }}
{{- end -}}

{{- define "pomogator.probes" -}}
{{- /* (port, seconds between probes of the start, their number) */ -}}
startupProbe:
  httpGet: { path: {{ index . 1 }}, port: {{ index . 0 }} }
  periodSeconds: {{ index . 2 }}
  failureThreshold: {{ index . 3 }}
livenessProbe:
  httpGet: { path: /healthz, port: {{ index . 0 }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: {{ index . 0 }} }
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}
