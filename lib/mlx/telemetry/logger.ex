defmodule Mlx.Telemetry.Logger do
  @moduledoc false

  # The handler of `Mlx.Telemetry.attach_default_logger/1`.

  require Logger

  @id __MODULE__

  @events [
    eval: [[:mlx, :eval, :stop], [:mlx, :eval, :exception]],
    to_binary: [[:mlx, :to_binary, :stop], [:mlx, :to_binary, :exception]],
    compile: [[:mlx, :compile, :stop], [:mlx, :compile, :exception], [:mlx, :compile, :hit]],
    fallback: [[:mlx, :fallback]],
    stream: [[:mlx, :stream]],
    memory: [[:mlx, :memory]],
    generation: [[:mlx, :generation, :stop], [:mlx, :generation, :exception]]
  ]

  def attach(opts) do
    opts = Keyword.validate!(opts, level: :debug, events: Keyword.keys(@events))
    check!(:level, [opts[:level]], Logger.levels())
    check!(:events, opts[:events], Keyword.keys(@events))
    events = Enum.flat_map(opts[:events], &@events[&1])
    :telemetry.attach_many(@id, events, &__MODULE__.handle/4, opts[:level])
  end

  def detach, do: :telemetry.detach(@id)

  defp check!(option, given, known) do
    case Enum.reject(given, &(&1 in known)) do
      [] ->
        :ok

      unknown ->
        raise ArgumentError,
              "the option #{inspect(option)} has #{inspect(known)}, got: #{inspect(unknown)}"
    end
  end

  @doc false
  def handle(event, measurements, metadata, level) do
    level = if List.last(event) in [:exception, :fallback], do: :warning, else: level
    Logger.log(level, fn -> line(event, measurements, metadata) end)
  end

  defp line([:mlx, :fallback], _measurements, %{error: error} = metadata) do
    "mlx.fallback: #{inspect(metadata.function)} runs with Nx.Defn.Evaluator: " <>
      Exception.message(error)
  end

  defp line([:mlx, :stream], %{queue_depth: depth}, %{stream: stream}),
    do: "mlx.stream: #{stream} has #{depth} jobs"

  defp line([:mlx, :memory], stats, _metadata) do
    "mlx.memory: " <> Enum.map_join(Enum.sort(stats), ", ", fn {key, n} -> "#{key} #{n}" end)
  end

  defp line([:mlx, name, :exception], %{duration: duration}, metadata) do
    banner = Exception.format_banner(metadata.kind, metadata.reason)
    "mlx.#{name} failed after #{time(duration)}: #{about(name, metadata)}: #{banner}"
  end

  defp line([:mlx, :generation, :stop], measured, metadata) do
    [prompt, decode] =
      for key <- [:prompt_tokens_per_second, :tokens_per_second],
          do: Float.round(measured[key] / 1, 1)

    "mlx.generation took #{time(measured.duration)}: #{about(:generation, metadata)}, " <>
      "#{prompt} per second, #{measured.tokens} tokens, #{decode} per second, the first after " <>
      time(measured.time_to_first_token)
  end

  defp line([:mlx, :compile, _], %{duration: duration, nodes: nodes}, metadata) do
    "mlx.compile took #{time(duration)}: #{about(:compile, metadata)}, #{nodes} nodes, " <>
      "cache #{metadata.cache}"
  end

  defp line([:mlx, name, :stop], %{duration: duration}, metadata),
    do: "mlx.#{name} took #{time(duration)}: #{about(name, metadata)}"

  defp about(:eval, %{tensors: count, byte_size: bytes, devices: devices}),
    do: "#{count} tensors, #{bytes} bytes, #{Enum.join(devices, " and ")}"

  defp about(:to_binary, %{shape: shape, type: type, byte_size: bytes, device: device}),
    do: "#{Nx.Type.to_string(type)}#{dims(shape)}, #{bytes} bytes, #{device}"

  defp about(:generation, %{rows: rows, prompt_tokens: count}),
    do: "#{rows} rows, #{count} tokens of prompts"

  defp about(:compile, %{function: function, device: device}),
    do: "#{inspect(function)} on #{device}"

  defp dims(shape), do: shape |> Tuple.to_list() |> Enum.map_join(&"[#{&1}]")

  defp time(duration), do: "#{System.convert_time_unit(duration, :native, :microsecond)} µs"
end
