defmodule Mlx.Doctor.Compute do
  @moduledoc false

  # Whether the devices are there and compute.

  import Mlx.Doctor, only: [ok: 2, warning: 3, error: 3]
  alias Mlx.Doctor.Runtime

  # A GPU compiles kernels at its first computation.
  @patience :timer.minutes(2)

  def application do
    case Application.ensure_all_started(:mlx) do
      {:ok, _} ->
        ok("application", "starts")

      {:error, {_app, reason}} ->
        error("application", exception(reason), "correct what `config :mlx` has")
    end
  end

  # Without the way that it came.
  defp exception(reason) do
    text = Application.format_error(reason)

    case Regex.run(~r/\*\* \((?!EXIT)[^)]*\) (.*)/, text) do
      [_, message] -> message
      nil -> text
    end
  end

  def devices(runtime) do
    available = Mlx.Device.available()
    message = "#{Enum.join(available, ", ")}; #{Mlx.Device.default()} by default"

    if :gpu in available,
      do: ok("devices", message),
      else: without_gpu(message, runtime, File.exists?("/proc/driver/nvidia/version"))
  end

  @doc false
  def without_gpu(message, {:ok, %Runtime{variant: "cuda" <> _}}, _driver?) do
    warning(
      "devices",
      message,
      "MLX's CUDA package sees no GPU: check NVIDIA's driver with nvidia-smi"
    )
  end

  def without_gpu(message, {:ok, %Runtime{variant: "metal"}}, _driver?),
    do: warning("devices", message, "Metal sees no GPU; virtual machines may have none")

  def without_gpu(message, {:ok, %Runtime{variant: "cpu"}}, true) do
    advice =
      "there is an NVIDIA driver: set MLX_VARIANT=cuda13 or cuda12, and run `cargo xtask mlx`"

    warning("devices", message, advice)
  end

  def without_gpu(message, _runtime, _driver?), do: ok("devices", message)

  def computations, do: Stream.map(Mlx.Device.available(), &computation/1)

  @doc """
  A few operations on a device, single and compiled.
  """
  def computation(device) do
    name = "#{device} computes"
    task = Task.async(fn -> compute(device) end)

    case Task.yield(task, @patience) || Task.shutdown(task, :brutal_kill) do
      {:ok, :ok} -> ok(name, "single operations and a compiled function")
      {:ok, message} -> error(name, message, "please report it with all that is above")
      nil -> error(name, "no answer in #{div(@patience, 1000)} s", "see whether the device hangs")
    end
  end

  defp compute(device) do
    x = Nx.iota({16, 16}, type: :f32, backend: {Mlx.Backend, device: device})
    fun = fn x -> x |> Nx.dot(Nx.transpose(x)) |> Nx.sum() |> Nx.divide(1024) end
    compiled = Nx.Defn.jit(fun, compiler: Mlx.Compiler, device: device, cache: false)
    # Of row i are the sums of columns, squared and added: exact in f32.
    expected = Enum.sum(for column <- 0..15, do: Enum.sum(column..255//16) ** 2) / 1024

    case {Nx.to_number(fun.(x)), Nx.to_number(compiled.(x))} do
      {^expected, ^expected} -> :ok
      got -> "gave #{inspect(got)} where #{expected} is right"
    end
  rescue
    error -> Exception.message(error)
  end
end
