defmodule Mlx.Telemetry do
  @moduledoc """
  The telemetry events of Mlx.

  Each is a span of `:telemetry.span/3`: `:start`, `:stop` and `:exception` are
  appended to the name, with the measurements `:system_time` and `:monotonic_time`
  at the start and `:duration` (native time units) at the end. The metadata is the
  same for all three; `:exception` adds `:kind`, `:reason` and `:stacktrace`.

  | event | when | metadata |
  |---|---|---|
  | `[:mlx, :eval, …]` | `Mlx.eval/1` waits for tensors | `:tensors`, `:byte_size`, `:devices` |
  | `[:mlx, :to_binary, …]` | a tensor's values are read | `:shape`, `:type`, `:byte_size`, `:device` |
  | `[:mlx, :compile, …]` | `Mlx.Compiler` compiles a function | `:function` |

  A single event says that a function runs with `Nx.Defn.Evaluator` instead, because
  `fallback: :evaluator` was given to `Mlx.Compiler`: `[:mlx, :fallback]`, with the
  measurement `:system_time`, the `:function`, the `:op` that can't be compiled, and the
  `:error`.

  Reading waits for everything the tensor depends on, so the duration is that of the
  computation not yet done, and of moving the values to the host.

  ## Example

      :telemetry.attach(
        "slow reads",
        [:mlx, :to_binary, :stop],
        fn _event, %{duration: duration}, metadata, _config ->
          IO.inspect({System.convert_time_unit(duration, :native, :microsecond), metadata})
        end,
        nil
      )

  """

  import Kernel, except: [byte_size: 1]

  @doc false
  def span(event, %Nx.Tensor{data: data, type: type} = tensor, fun) do
    shape = Mlx.Backend.whole_shape(tensor)

    metadata = %{shape: shape, type: type, byte_size: byte_size(tensor), device: data.device}
    :telemetry.span([:mlx, event], metadata, fn -> {fun.(), metadata} end)
  end

  @doc false
  def eval(tensors, fun) do
    bytes = tensors |> Enum.map(&byte_size/1) |> Enum.sum()
    devices = tensors |> Enum.map(& &1.data.device) |> Enum.uniq()
    metadata = %{tensors: length(tensors), byte_size: bytes, devices: devices}
    :telemetry.span([:mlx, :eval], metadata, fn -> {fun.(), metadata} end)
  end

  defp byte_size(%Nx.Tensor{type: {_, bits}} = tensor) do
    div(Tuple.product(Mlx.Backend.whole_shape(tensor)) * bits + 7, 8)
  end

  @doc false
  def compile(function, fun) do
    metadata = %{function: function}
    :telemetry.span([:mlx, :compile], metadata, fn -> {fun.(), metadata} end)
  end

  @doc false
  def fallback(function, error) do
    metadata = %{function: function, op: error.op, error: error}
    :telemetry.execute([:mlx, :fallback], %{system_time: System.system_time()}, metadata)
  end
end
