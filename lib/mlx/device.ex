defmodule Mlx.Device do
  @moduledoc """
  The devices Mlx can compute on.

  `:gpu` is the Apple or NVIDIA GPU, `:cpu` the processor. New tensors go to the
  default device, which is the GPU where there is one:

      Nx.default_backend(Mlx.Backend)
      Nx.default_backend({Mlx.Backend, device: :cpu})

  ## Operands on different devices

  An operation runs where its operands are. Scalars follow the other operands.
  Where tensors that are not scalars are on different devices, the operation runs
  on the GPU, and so does one whose operands are all scalars.
  """

  @typedoc "A kind of device; there is one of each at most."
  @type t :: :cpu | :gpu

  @default {__MODULE__, :default}

  @doc """
  The devices that this machine and this build of MLX have.

  ## Examples

      iex> :cpu in Mlx.Device.available()
      true

  """
  @spec available() :: [t]
  def available, do: Mlx.Native.device_available()

  @doc """
  The device new tensors go to when none is asked for: in `Mlx.Stream.with_stream/2` that of
  the stream, else the one that was set, or the GPU where there is one.

  ## Examples

      iex> Mlx.Device.default() in Mlx.Device.available()
      true

  """
  @spec default() :: t
  def default do
    case Mlx.Stream.current() do
      %Mlx.Stream{device: device} -> device
      nil -> :persistent_term.get(@default, nil) || first()
    end
  end

  defp first, do: if(:gpu in available(), do: :gpu, else: :cpu)

  @doc """
  Sets the device new tensors go to, for all processes.

  Raises `Mlx.Error` with `kind: :device` if the device is not there.

  ## Examples

      iex> Mlx.Device.set_default(:cpu)
      :ok
      iex> Mlx.Device.default()
      :cpu

  """
  @spec set_default(t) :: :ok
  def set_default(device) do
    :persistent_term.put(@default, check!(device))
  end

  @doc false
  @spec check!(term) :: t
  def check!(device) do
    available = available()

    if device in available do
      device
    else
      raise Mlx.Error,
        kind: :device,
        message:
          "there is no device #{inspect(device)}; " <>
            "available: #{Enum.map_join(available, ", ", &inspect/1)}"
    end
  end
end
