{{- define "remit.selector" -}}
app.kubernetes.io/name: remit
{{- if ne .Release.Name "remit" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- end }}

{{- define "remit.name" -}}
{{- if eq .Release.Name "remit" }}remit{{ else }}{{ printf "%s-remit" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}
