defmodule Mlx.Example do
  @moduledoc """
  Runs the scripts in `examples/`.
  """

  import ExUnit.Callbacks, only: [on_exit: 1]

  @doc """
  What a script prints, given arguments.
  """
  def run(name, args \\ []) do
    before = System.argv()

    try do
      System.argv(args)
      ExUnit.CaptureIO.capture_io(fn -> Code.eval_file("examples/#{name}.exs") end)
    after
      System.argv(before)
    end
  end

  @doc """
  Forgets modules that a script has defined, so that it can define them again.
  """
  def forget(modules) do
    for module <- modules do
      :code.purge(module)
      :code.delete(module)
    end
  end

  @doc """
  Puts the default backend back after the test, because scripts set it.
  """
  def restore_backend do
    backend = Nx.default_backend()
    on_exit(fn -> Nx.default_backend(backend) end)
  end

  @doc """
  Has the scripts of a test run on the CPU: on a GPU the order of additions is not the same every
  time.
  """
  def on_cpu do
    default = Mlx.Device.default()
    Mlx.Device.set_default(:cpu)
    on_exit(fn -> Mlx.Device.set_default(default) end)
    restore_backend()
  end
end
