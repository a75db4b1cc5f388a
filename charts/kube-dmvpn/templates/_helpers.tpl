{{/* Names are fixed: resources are cluster-wide and agents own paths of their node, so there is one kube-dmvpn in a cluster. */}}

{{/* Labels of every object; argument: dict "root" $ "component" "agent" */}}
{{- define "kube-dmvpn.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: kube-dmvpn
{{ include "kube-dmvpn.selector" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that select pods: they never change, or upgrades would be refused. */}}
{{- define "kube-dmvpn.selector" -}}
app.kubernetes.io/name: kube-dmvpn
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Image; argument: dict "root" $ "image" .Values.agent.image */}}
{{- define "kube-dmvpn.image" -}}
{{- $own := .image | default dict -}}
{{- $image := merge (dict) $own .root.Values.image -}}
{{- if and $own.tag (not $own.digest) }}{{ $_ := set $image "digest" "" }}{{ end -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "kube-dmvpn.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* A container of the restricted pod security profile. */}}
{{- define "kube-dmvpn.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What a policy knows agents by. */}}
{{- define "kube-dmvpn.agentUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:dmvpn-agent
{{- end }}

{{/* What the schema can't say. */}}
{{- define "kube-dmvpn.check" -}}
{{- range .Values.caSecrets }}
{{- if has . $.Values.secrets }}
{{- fail (printf "%s is in secrets and in caSecrets: every agent could read the key of your CA. Leave it out of secrets; put the roots that agents need (ca.crt) into another Secret" .) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) }}
{{- fail "metrics.serviceMonitor.enabled needs metrics.enabled: agents serve metrics on 127.0.0.1 only without it" }}
{{- end }}
{{- end }}
