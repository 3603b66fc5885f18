defmodule Mlx.Downcast do
  @moduledoc false

  # f64 on devices that lack it. With `config :mlx, f64: :downcast` the array of such a
  # tensor is one of f32, and operations see only that type; Nx goes on to say f64. Values
  # are narrowed where they come in and widened where they go out.

  alias Mlx.Lowering.Narrow

  @devices {__MODULE__, :devices}

  @doc """
  The type of the array behind a tensor of `type` on a device.
  """
  def stored({:f, 64} = type, device), do: if(lacking?(device), do: {:f, 32}, else: type)
  def stored(type, _device), do: Narrow.wide(type)

  @doc """
  What a lowering for a device is to give where Nx wants `out`, a tensor or a tuple of them.
  """
  def out(%{type: {:f, 64} = type} = out, device), do: %{out | type: stored(type, device)}
  def out(%{} = out, _device), do: out

  def out(outs, device) when is_tuple(outs) do
    outs |> Tuple.to_list() |> Enum.map(&out(&1, device)) |> List.to_tuple()
  end

  @doc """
  Raises if f64 is not there on a device and nothing is to stand in for it.
  """
  def check!(device) do
    if lacking?(device) and Mlx.Config.get(:f64) == :error do
      raise Mlx.Error,
        kind: :type,
        message:
          "GPUs have no f64: cast to f32 with Nx.as_type/2, use the CPU with " <>
            "Nx.backend_transfer(tensor, {Mlx.Backend, device: :cpu}), or compute in f32 " <>
            "with config :mlx, f64: :downcast"
    end

    :ok
  end

  @doc """
  Whether a device lacks f64.
  """
  def lacking?(device), do: device in :persistent_term.get(@devices, [:gpu])

  @doc """
  Treats devices as ones that lack f64, for tests on machines where all have it.
  """
  def set_lacking(devices), do: :persistent_term.put(@devices, devices)
end
